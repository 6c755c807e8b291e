package pins

import (
	"fmt"
	"slices"
	"strings"

	digest "github.com/opencontainers/go-digest"
	"go.podman.io/storage"
)

// findImage looks an image up: as it stands first (an ID or a name, also one that is no reference), then as podman would: by digest, by
// the beginning of the ID, by a name without registry or tag. The error matches ErrUnknown if there is none, and ErrRefused if there are
// several.
func findImage(s storage.Store, what string) (*storage.Image, error) {
	images, err := s.Images()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	what = strings.TrimSpace(what)
	if what == "" {
		return nil, fmt.Errorf("an image without a name: %w", ErrUnknown)
	}
	for _, rule := range []func(*storage.Image) bool{
		func(i *storage.Image) bool { return i.ID == what || slices.Contains(i.Names, what) },
		func(i *storage.Image) bool { return "sha256:"+i.ID == what },
		func(i *storage.Image) bool { return hasDigest(i, what) },
		func(i *storage.Image) bool {
			return slices.ContainsFunc(i.Names, func(n string) bool { return called(n, what, false) })
		},
		func(i *storage.Image) bool {
			return slices.ContainsFunc(i.Names, func(n string) bool { return called(n, what, true) })
		},
		func(i *storage.Image) bool {
			return isHex(what) && strings.HasPrefix(i.ID, strings.TrimPrefix(what, "sha256:"))
		},
	} {
		var found []*storage.Image
		for n := range images {
			// An image may have a record in several stores.
			if rule(&images[n]) && !slices.ContainsFunc(found, func(i *storage.Image) bool { return i.ID == images[n].ID }) {
				found = append(found, &images[n])
			}
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		var which []string
		for _, i := range found {
			which = append(which, short(i.ID)+" ("+strings.Join(i.Names, " ")+")")
		}
		return nil, fmt.Errorf("image %q is ambiguous: it may be %s: %w", what, strings.Join(which, " or "), ErrRefused)
	}
	return nil, fmt.Errorf("image %q: %w", what, ErrUnknown)
}

func isHex(s string) bool {
	s = strings.TrimPrefix(s, "sha256:")
	return len(s) >= 3 && strings.Trim(s, "0123456789abcdef") == ""
}

// hasDigest answers to `sha256:…` and to `name@sha256:…`.
func hasDigest(i *storage.Image, what string) bool {
	name, text, named := strings.Cut(what, "@")
	if !named {
		name, text = "", what
	}
	d, err := digest.Parse(text)
	if err != nil || !slices.Contains(i.Digests, d) {
		return false
	}
	return name == "" || slices.ContainsFunc(i.Names, func(n string) bool { return repository(n) == name || strings.HasSuffix(repository(n), "/"+name) })
}

// repository is a name without tag and digest.
func repository(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name = name[:colon]
	}
	return name
}

// called reports whether an image's name is what podman would take a short one for: of localhost or Docker Hub, or, with any, of
// whatever registry.
func called(name, what string, any bool) bool {
	if repository(what) == what {
		what += ":latest"
	}
	for _, prefix := range []string{"", "localhost/", "docker.io/library/", "docker.io/"} {
		if name == prefix+what {
			return true
		}
	}
	return any && strings.HasSuffix(name, "/"+what)
}
