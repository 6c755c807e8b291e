package overlay

import "golang.org/x/sys/unix"

// Ways are all ways to make a mount, by name: older kernels force the later ones.
var Ways = map[string]Way{
	"fd":            {apiFD, false},
	"fd private":    {apiFD, true},
	"link":          {apiLink, false},
	"link private":  {apiLink, true},
	"mount":         {apiMount, false},
	"mount private": {apiMount, true},
}

// A Way is a way to make a mount.
type Way = way

// DoBy makes the mount in one way, or in the ones after it.
func (m *Mount) DoBy(w Way) error { return m.do(w) }

// DoOnly makes the mount in one way or not at all.
func (m *Mount) DoOnly(w Way) error {
	p, err := newPlan(m)
	if err != nil {
		return err
	}
	defer p.close()
	mnt, err := p.attempt(w)
	if err != nil {
		return err
	}
	defer unix.Close(mnt)
	return p.attach(mnt)
}

// Private reports whether the way can hold detached lowers on every kernel.
func (w way) Private() bool { return w.private }

// NewUserNamespace makes a user namespace without the cache.
var NewUserNamespace = newUserNamespace
