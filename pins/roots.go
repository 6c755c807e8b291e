package pins

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/graphroots"
)

// A Need is a layer or an image of a registered graphroot that stands on a layer which is not there, but perhaps in the pinned store.
type Need struct {
	Graphroot string `json:"graphroot"`
	Layer     string `json:"layer,omitempty"` // the layer that has Parent as its parent
	Image     string `json:"image,omitempty"` // or the image that has Parent as its top layer
	Parent    string `json:"parent"`
}

// needs are what all registered graphroots need, read under their locks, which stay held until release: no layer comes into being meanwhile.
type needs struct {
	list       []Need
	unreadable []Unreadable
	locks      []*os.File
}

func (n *needs) release() {
	for _, f := range n.locks {
		f.Close()
	}
	n.locks = nil
}

// readNeeds reads the layers of every registered graphroot.
func readNeeds(store string) (*needs, error) {
	list, bad, err := graphroots.List(store)
	if err != nil {
		return nil, fmt.Errorf("list the registered graphroots: %w", err)
	}
	n := &needs{}
	for _, f := range bad {
		n.unreadable = append(n.unreadable, Unreadable{f.Path, f.Err.Error()})
	}
	for _, r := range list {
		if err := n.read(r); err != nil {
			n.unreadable = append(n.unreadable, Unreadable{r.Graphroot, err.Error()})
		}
	}
	return n, nil
}

// read adds the needs of one graphroot. One that is gone needs nothing: losing it whole is a normal state.
func (n *needs) read(r graphroots.Root) error {
	layers, images := filepath.Join(r.Graphroot, "ostree-layers"), filepath.Join(r.Graphroot, "ostree-images")
	err := n.hold(filepath.Join(layers, "layers.lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return gone(r)
	}
	if err != nil {
		return err
	}
	if err := n.hold(filepath.Join(images, "images.lock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	own := map[string]bool{}
	var all []LayerRecord
	for _, dir := range []string{layers, filepath.Join(r.RunRoot, "ostree-layers")} {
		records, _, err := LayerRecords(dir)
		if err != nil {
			return err
		}
		all = append(all, records...)
	}
	for _, l := range all {
		own[l.ID] = true
	}
	for _, l := range all {
		if l.Parent != "" && !own[l.Parent] {
			n.list = append(n.list, Need{Graphroot: r.Graphroot, Layer: l.ID, Parent: l.Parent})
		}
	}
	records, err := readImages(filepath.Join(images, "images.json"))
	if err != nil {
		return err
	}
	for _, i := range records {
		for _, top := range append([]string{i.Layer}, i.Mapped...) {
			if top != "" && !own[top] {
				n.list = append(n.list, Need{Graphroot: r.Graphroot, Image: i.ID, Parent: top})
			}
		}
	}
	return nil
}

// hold takes a lock of containers/storage, shared, as an open file description's: it conflicts with those of programs, this one
// included.
func (n *needs) hold(path string) error {
	lock, err := os.Open(path)
	if err != nil {
		return err
	}
	n.locks = append(n.locks, lock)
	for {
		err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart})
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// An imageRecord is what matters here of an image in containers/storage's list.
type imageRecord struct {
	ID     string   `json:"id"`
	Layer  string   `json:"layer"`
	Mapped []string `json:"mapped-layers"` // its top layer with other owners
}

// readImages reads a list of images; one that does not exist is empty.
func readImages(path string) ([]imageRecord, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var records []imageRecord
	if err := json.Unmarshal(text, &records); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return records, nil
}

// gone tells a graphroot that was removed from one that cannot be seen now.
func gone(r graphroots.Root) error {
	for _, name := range []string{"ostree-layers/layers.json", "ostree-layers/volatile-layers.json"} {
		if _, err := os.Stat(filepath.Join(r.Graphroot, name)); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there but its lock is not", name)
		}
	}
	now, err := graphroots.FSID(r.Graphroot)
	if err != nil {
		return err
	}
	if now != r.FSID {
		return errors.New("it is not there, and its place is on another filesystem than before: it may not be mounted")
	}
	return nil
}
