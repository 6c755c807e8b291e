package selinux

// A Host is a kernel and policy for tests: Labels are the ones it knows.
type Host struct {
	On                  bool
	ReadOnly, File, Usr string
	Known               func(label string) error
	Err                 error
}

func (h Host) host() host {
	return host{
		enabled:    func() bool { return h.On },
		containers: func() (string, string) { return h.ReadOnly, h.File },
		known:      h.Known,
		fileLabel:  func(string) (string, error) { return h.Usr, h.Err },
	}
}

// MountLabel is the package's on h.
func (h Host) MountLabel(label string) (string, error) { return h.host().mountLabel(label) }

// StoreLabel is the package's on h.
func (h Host) StoreLabel() string { return h.host().storeLabel() }
