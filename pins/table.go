package pins

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Pin is why an image is kept.
type Pin struct {
	Name    string     `json:"name"`
	Image   string     `json:"image"`            // the image's ID
	Reason  string     `json:"reason,omitempty"` // for people
	Since   time.Time  `json:"since"`
	Expires *time.Time `json:"expires,omitempty"` // nothing acts on it by itself: `unpin --expired` does
}

// Expired reports whether the pin was to end before now.
func (p Pin) Expired(now time.Time) bool { return p.Expires != nil && p.Expires.Before(now) }

// tableVersion is the version of the table's form. A later one is not read, so that an older program loses nothing of it.
const tableVersion = 1

// A table is the file `pins.json` in the pinned store.
type table struct {
	Version int   `json:"version"`
	Pins    []Pin `json:"pins"`
}

func tablePath(store string) string { return filepath.Join(store, "pins.json") }

// readTable reads the table; one that does not exist is empty.
func readTable(store string) (*table, error) {
	t := &table{Version: tableVersion}
	text, err := os.ReadFile(tablePath(store))
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the table of pins: %w", err)
	}
	if err := json.Unmarshal(text, t); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", tablePath(store), ErrDamaged, err)
	}
	if t.Version != tableVersion {
		return nil, fmt.Errorf("%s has version %d, this program knows %d: %w", tablePath(store), t.Version, tableVersion, ErrRefused)
	}
	return t, nil
}

// write replaces the table's file: at any time there is the old one or the new one, whole.
func (t *table) write(store string) error {
	slices.SortFunc(t.Pins, func(a, b Pin) int { return strings.Compare(a.Name, b.Name) })
	return writeJSON(tablePath(store), t)
}

func (t *table) find(name string) int {
	return slices.IndexFunc(t.Pins, func(p Pin) bool { return p.Name == name })
}

// of returns the names of an image's pins.
func (t *table) of(image string) []string {
	var names []string
	for _, p := range t.Pins {
		if p.Image == image {
			names = append(names, p.Name)
		}
	}
	return names
}

// writeJSON writes a file durably under a temporary name and renames it.
func writeJSON(path string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(text, '\n'), 0o600)
}

// writeFile replaces a file durably.
func writeFile(path string, text []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
