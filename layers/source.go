package layers

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ostree-storage/ostree-storage/store"
)

// A Source is a repository on the same filesystem whose objects a catalog may link into its own: another catalog's, or any other
// OSTree repository of mode bare.
type Source struct{ repo *store.Repo }

// OpenSource opens a repository that is no catalog's.
func OpenSource(path string) (*Source, error) {
	r, err := store.Open(path)
	if err != nil {
		return nil, err
	}
	return &Source{r}, nil
}

// Source returns the catalog's own repository, for another catalog. It stays open as long as the catalog.
func (c *Catalog) Source() *Source { return &Source{c.repo} }

// Path returns the repository's directory.
func (s *Source) Path() string { return s.repo.Path() }

// Close closes what OpenSource opened.
func (s *Source) Close() error { return s.repo.Close() }

// sources returns the repositories of the option.
func (o *Options) sources() []*store.Repo {
	out := make([]*store.Repo, 0, len(o.Sources))
	for _, s := range o.Sources {
		out = append(out, s.repo)
	}
	return out
}

// matchUnsupported makes what the store's ErrUnsupported matches match this package's too.
func matchUnsupported(err error) error {
	if errors.Is(err, store.ErrUnsupported) && !errors.Is(err, ErrUnsupported) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// StoreLabel returns the label that the repository of the home has, "" for none. The error matches fs.ErrNotExist if there is no
// repository yet.
func StoreLabel(home string) (string, error) {
	r, err := store.Open(filepath.Join(home, repoName))
	if err != nil {
		return "", matchUnsupported(err)
	}
	return r.Label(), r.Close()
}
