package pins

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// dropIn is our file in crio.conf.d. It sorts late: a list in a later file replaces one in an earlier file.
const dropIn = "99-ostree-storage-pins.conf"

// CRIO is the configuration of CRI-O on this host. Kubelet keeps off images that CRI-O calls pinned; without that it tries to remove those
// of the pinned store for ever.
type CRIO struct {
	Dir string // /etc/crio
}

// Configured reports whether CRI-O is configured here.
func (c *CRIO) Configured() bool {
	if c == nil || c.Dir == "" {
		return false
	}
	st, err := os.Stat(c.Dir)
	return err == nil && st.IsDir()
}

// Path is the drop-in's.
func (c *CRIO) Path() string { return filepath.Join(c.Dir, "crio.conf.d", dropIn) }

// crioConfig is the part of CRI-O's configuration that matters.
type crioConfig struct {
	CRIO struct {
		Image struct {
			Pinned []string `toml:"pinned_images"`
		} `toml:"image"`
	} `toml:"crio"`
}

// others returns the list that is in force without our file, and the files that would replace ours.
func (c *CRIO) others() (list, after []string, err error) {
	paths := []string{filepath.Join(c.Dir, "crio.conf")}
	entries, err := os.ReadDir(filepath.Join(c.Dir, "crio.conf.d"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, e := range entries {
		if !e.IsDir() && e.Name() != dropIn && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(c.Dir, "crio.conf.d", e.Name()))
		}
	}
	for _, path := range paths {
		var config crioConfig
		meta, err := toml.DecodeFile(path, &config)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", path, err)
		}
		if !meta.IsDefined("crio", "image", "pinned_images") {
			continue
		}
		list = config.CRIO.Image.Pinned
		if path != paths[0] && filepath.Base(path) > dropIn {
			after = append(after, path)
		}
	}
	return list, after, nil
}

// text is what our file has to hold for some names; nil if there is to be none.
func (c *CRIO) text(names []string) ([]byte, error) {
	if len(names) == 0 {
		return nil, nil
	}
	list, _, err := c.others()
	if err != nil {
		return nil, err
	}
	all := append(slices.Clone(list), names...)
	slices.Sort(all)
	all = slices.Compact(all)
	var b bytes.Buffer
	b.WriteString("# Written by `storagectl pin` and `storagectl unpin`: the images of the pinned store, and what the files before this one list.\n")
	b.WriteString("[crio.image]\npinned_images = [\n")
	for _, name := range all {
		quoted, err := quote(name)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "\t%s,\n", quoted)
	}
	b.WriteString("]\n")
	return b.Bytes(), nil
}

// quote writes a TOML string.
func quote(s string) (string, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("the name %q has control characters: %w", s, ErrRefused)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`, nil
}

// Names returns the names of all pinned images, under which CRI-O knows them.
func (s *Store) Names() ([]string, error) {
	pins, err := s.List()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range pins {
		names = append(names, p.Names...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Keep makes CRI-O's list name these images, and reports whether the file had to change: CRI-O has to reload then.
func (c *CRIO) Keep(names []string) (changed bool, err error) {
	want, err := c.text(names)
	if err != nil {
		return false, fmt.Errorf("keep pinned_images of CRI-O: %w", err)
	}
	have, err := os.ReadFile(c.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if bytes.Equal(have, want) && (want == nil) == (have == nil) {
		return false, nil
	}
	if want == nil {
		return true, os.Remove(c.Path())
	}
	if err := os.MkdirAll(filepath.Dir(c.Path()), 0o755); err != nil {
		return false, err
	}
	return true, writeFile(c.Path(), want, 0o644)
}

// advise compares the drop-in with the pins.
func (c *CRIO) advise(s *Store, advise func(next, problem string, args ...any)) error {
	names, err := s.Names()
	if err != nil {
		return err
	}
	want, err := c.text(names)
	if err != nil {
		advise("correct that file", "CRI-O's configuration cannot be read: %v", err)
		return nil
	}
	if have, err := os.ReadFile(c.Path()); !bytes.Equal(have, want) || err != nil && want != nil {
		advise("storagectl pin doctor --crio, then reload CRI-O", "CRI-O's list of pinned images is not that of the pinned store: %s", c.Path())
	}
	if _, after, err := c.others(); err == nil && len(names) > 0 {
		for _, path := range after {
			advise("move its pinned_images into a file that sorts before "+dropIn, "%s replaces the list of %s", path, dropIn)
		}
	}
	return nil
}
