package pins

import (
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// An Advice is something that an administrator should know, and what to do.
type Advice struct {
	Problem string `json:"problem"`
	Next    string `json:"next"` // the command or the change that helps
}

// Doctor looks for what keeps pins from doing their work, without reading any content. It changes nothing.
func (s *Store) Doctor(c *CRIO) ([]Advice, error) {
	out := []Advice{}
	advise := func(next, problem string, args ...any) {
		out = append(out, Advice{fmt.Sprintf(problem, args...), next})
	}
	pins, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, p := range pins {
		switch {
		case p.Missing:
			advise("storagectl unpin "+p.Name+", then pull and pin the image again", "the pin %q is in the table, but its image %s has no record", p.Name, short(p.Image))
		case p.Unnamed:
			advise("storagectl pin --name NAME "+short(p.Image)+", or storagectl unpin "+short(p.Image), "image %s has no entry in the table: a pin was cut short, and it counts as pinned", short(p.Image))
		case p.Expired:
			advise("storagectl unpin --expired", "the pin %q expired on %s", p.Name, p.Expires.Format(time.DateOnly))
		}
	}
	held, unreadable, err := s.Held()
	if err != nil {
		return nil, err
	}
	for _, u := range unreadable {
		advise("mount it, or storagectl unpin --force if it is gone for good", "the registered graphroot %s cannot be read: %s", u.Graphroot, u.Reason)
	}
	for _, h := range held {
		if len(h.By) == 0 && !h.below(held) {
			advise("storagectl unpin --held", "layer %s is of no image and nothing needs it", short(h.Layer))
		}
	}
	s.advisePlace(advise)
	if c.Configured() {
		if err := c.advise(s, advise); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// below reports whether another held layer stands on this one.
func (h Held) below(all []Held) bool {
	for _, o := range all {
		if o.Parent == h.Layer {
			return true
		}
	}
	return false
}

// advisePlace looks at where the store is.
func (s *Store) advisePlace(advise func(next, problem string, args ...any)) {
	if st, err := os.Stat(s.o.Path); err == nil && st.Mode().Perm()&0o022 != 0 {
		advise("chmod 0700 "+s.o.Path, "others may write to the pinned store %s", s.o.Path)
	}
	for _, lock := range []string{"images", "layers"} {
		path := filepath.Join(s.o.Path, driverName+"-"+lock, lock+".lock")
		if f, err := os.Open(path); err != nil {
			advise("storagectl pin ls, which makes it", "the driver hides the pinned store: %v", err)
		} else {
			f.Close()
		}
	}
	if _, err := os.Stat(s.o.Main.GraphRoot); err != nil {
		return
	}
	if how, err := sharingOf(s.o.Main.GraphRoot, s.o.Path); err == nil && how != ByLink {
		advise("pinned_store=PATH on the mount of "+s.o.Main.GraphRoot, "pins cost more than directory entries: from %s to %s is by %s", s.o.Main.GraphRoot, s.o.Path, how)
	}
}
