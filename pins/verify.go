package pins

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/store"
)

// Verified is what Verify found.
type Verified struct {
	Images []VerifiedImage `json:"images"`
	Repo   []string        `json:"repository"` // what is wrong with the repository
}

// Damaged reports whether anything was found.
func (v *Verified) Damaged() bool {
	return len(v.Repo) > 0 || slices.ContainsFunc(v.Images, func(i VerifiedImage) bool { return len(i.Problems) > 0 })
}

// A VerifiedImage is one pinned image.
type VerifiedImage struct {
	Pins     []string `json:"pins"`
	Image    string   `json:"image"`
	Names    []string `json:"names"`
	Layers   int      `json:"layers"`
	Problems []string `json:"problems"`
}

// Verify reads the pinned images, or those of some pins, and compares them with their digests: every layer's tar is put together
// again, and every object of the repository is hashed. With quick no file's content is read. It changes nothing.
func (s *Store) Verify(ctx context.Context, which []string, quick bool) (*Verified, error) {
	pins, err := s.List()
	if err != nil {
		return nil, err
	}
	wanted, err := s.wanted(pins, which)
	if err != nil {
		return nil, err
	}
	report, err := s.check(quick)
	if err != nil {
		return nil, err
	}
	out := &Verified{Images: []VerifiedImage{}, Repo: []string{}}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		v := VerifiedImage{Pins: []string{}, Image: id, Names: []string{}, Problems: []string{}}
		for _, p := range pins {
			if p.Image == id {
				v.Pins, v.Names = append(v.Pins, p.Name), p.Names
				if p.Missing {
					v.Problems = append(v.Problems, "the image has no record")
				}
			}
		}
		for _, e := range report.Images[id] {
			v.Problems = append(v.Problems, e.Error())
		}
		s.verifyLayers(&v, report)
		out.Images = append(out.Images, v)
	}
	out.Repo, err = s.fsck(ctx, quick)
	return out, err
}

// wanted are the images of the named pins, or of all.
func (s *Store) wanted(pins []Listed, which []string) (map[string]bool, error) {
	out := map[string]bool{}
	for _, p := range pins {
		if len(which) == 0 {
			out[p.Image] = true
		}
	}
	t, err := readTable(s.o.Path)
	if err != nil {
		return nil, err
	}
	for _, w := range which {
		_, image, err := s.findPin(t, w)
		if err != nil {
			return nil, err
		}
		out[image] = true
	}
	return out, nil
}

func (s *Store) check(quick bool) (storage.CheckReport, error) {
	// Not the comparison with what is mounted: it takes directories that no tar lists for changes. Fsck compares owners, modes and times.
	o := storage.CheckMost()
	if quick {
		o = &storage.CheckOptions{LayerData: true, ImageData: true}
	}
	never := time.Duration(1<<63 - 1) // held layers are of no image
	o.LayerUnreferencedMaximumAge = &never
	report, err := s.own.Check(o)
	if err != nil {
		return report, fmt.Errorf("check the pinned store: %w", err)
	}
	if s.view != "" {
		report.Images, report.Layers = report.ROImages, report.ROLayers
	}
	return report, nil
}

// verifyLayers adds what is wrong with an image's layers.
func (s *Store) verifyLayers(v *VerifiedImage, report storage.CheckReport) {
	image, err := s.own.Image(v.Image)
	if err != nil {
		return
	}
	ids, err := s.chainOf(image.TopLayer)
	if err != nil {
		v.Problems = append(v.Problems, err.Error())
	}
	v.Layers = len(ids)
	for _, id := range ids {
		for _, e := range report.Layers[id] {
			text := fmt.Sprintf("layer %s: %v", short(id), e)
			if !slices.ContainsFunc(v.Problems, func(p string) bool { return p == text || strings.HasSuffix(text, p) }) {
				v.Problems = append(v.Problems, text)
			}
		}
	}
}

// fsck checks the repository.
func (s *Store) fsck(ctx context.Context, quick bool) ([]string, error) {
	repo, err := store.Open(s.Repo())
	if err != nil {
		return nil, fmt.Errorf("open the repository of the pinned store: %w", err)
	}
	defer repo.Close()
	out := []string{}
	if err := repo.Fsck(ctx, store.FsckOptions{Quick: quick}, func(f store.Finding) { out = append(out, f.String()) }); err != nil {
		return out, fmt.Errorf("check the repository of the pinned store: %w", err)
	}
	return out, nil
}
