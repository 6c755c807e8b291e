package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/plugin"
)

// A known image is an image record of any store. One that several stores have is one.
type knownImage struct {
	storage.Image
	Pinned bool // in the pinned store
	Own    bool // in the store that can be written to
}

// images lists the images of all stores: none, and no store is opened, where there is none.
func (a *app) images() ([]*knownImage, error) {
	if gone, err := a.nothing(); gone || err != nil {
		return nil, err
	}
	s, err := a.store()
	if err != nil {
		return nil, err
	}
	list, err := s.Images()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	pinned, err := a.pinnedImages()
	if err != nil {
		return nil, err
	}
	var out []*knownImage
	byID := map[string]*knownImage{}
	for _, image := range list {
		k := byID[image.ID]
		if k == nil {
			k = &knownImage{Image: image, Pinned: pinned[image.ID]}
			byID[image.ID] = k
			out = append(out, k)
		}
		for _, n := range image.Names {
			if !slices.Contains(k.Names, n) {
				k.Names = append(k.Names, n)
			}
		}
		k.Own = k.Own || !image.ReadOnly
	}
	slices.SortFunc(out, func(x, y *knownImage) int {
		return strings.Compare(name(x.ID, x.Names)+x.ID, name(y.ID, y.Names)+y.ID)
	})
	return out, nil
}

// pinnedStore returns where the pinned store is, if the driver offers it, or "".
func (a *app) pinnedStore() (string, error) {
	o, err := a.options()
	if err != nil {
		return "", err
	}
	path, err := plugin.PinnedStore(o.GraphRoot, o.RunRoot, o.GraphDriverOptions)
	if err != nil || path == "" {
		return "", err
	}
	d, err := a.opened.GraphDriver()
	if err != nil {
		return "", fmt.Errorf("open driver: %w", err)
	}
	if !slices.Contains(d.AdditionalImageStores(), path) {
		return "", nil
	}
	return path, nil
}

// pinnedImages are the ids of the images in the pinned store.
func (a *app) pinnedImages() (map[string]bool, error) {
	path, err := a.pinnedStore()
	if err != nil || path == "" {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(path, driverName+"-images", "images.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var records []struct {
		ID string `json:"id"`
	}
	if err == nil {
		err = json.Unmarshal(b, &records)
	}
	if err != nil {
		return nil, advise(fmt.Errorf("read pinned store: %w", err), "storagectl pin doctor")
	}
	ids := map[string]bool{}
	for _, r := range records {
		ids[r.ID] = true
	}
	return ids, nil
}

// image finds an image: by a name as it stands, by a name as podman completes it, by digest, by the beginning of an id.
func (a *app) image(arg string) (*knownImage, error) {
	all, err := a.images()
	if err != nil {
		return nil, err
	}
	for _, match := range []func(*knownImage) bool{
		func(k *knownImage) bool { return k.ID == arg || slices.Contains(k.Names, arg) },
		func(k *knownImage) bool { return slices.Contains(k.Names, completed("localhost/"+arg)) },
		func(k *knownImage) bool { return slices.Contains(k.Names, completed(arg)) },
		func(k *knownImage) bool { return hasDigest(k, arg) },
		func(k *knownImage) bool {
			return isShortID(arg) && strings.HasPrefix(k.ID, strings.TrimPrefix(arg, "sha256:"))
		},
		func(k *knownImage) bool { return hasSuffix(k, arg) },
	} {
		var found []*knownImage
		for _, k := range all {
			if match(k) {
				found = append(found, k)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return nil, ambiguous(arg, found)
		}
	}
	if gone, err := a.nothing(); gone || err != nil {
		return nil, errors.Join(err, a.noStore())
	}
	return nil, advise(fmt.Errorf("no image is called %q: %w", arg, storage.ErrImageUnknown), "storagectl images")
}

// noStore says that there is no store to look into.
func (a *app) noStore() error {
	root, _, err := a.graphroot()
	return errors.Join(err, advise(fmt.Errorf("there is no store in %s", root), "storagectl pull IMAGE"))
}

func ambiguous(arg string, found []*knownImage) error {
	var list []string
	for _, k := range found {
		list = append(list, short(k.ID)+" ("+name(k.ID, k.Names)+")")
	}
	return advise(fmt.Errorf("%q can be any of %s", arg, strings.Join(list, ", ")), "storagectl show %s", found[0].ID)
}

// completed is a name with its registry and tag, "" if it is none.
func completed(arg string) string {
	named, err := reference.ParseNormalizedNamed(arg)
	if err != nil {
		return ""
	}
	return reference.TagNameOnly(named).String()
}

// hasDigest matches name@digest and sha256:… against an image's manifests.
func hasDigest(k *knownImage, arg string) bool {
	repo, wanted, named := strings.Cut(arg, "@")
	if !named {
		repo, wanted = "", arg
	}
	for _, d := range append(k.Digests, k.Digest) {
		if d == "" || d.String() != wanted {
			continue
		}
		if !named {
			return true
		}
		for _, n := range k.Names {
			if base, _, _ := strings.Cut(n, "@"); trimTag(base) == repo || trimTag(base) == trimTag(completed(repo)) {
				return true
			}
		}
	}
	return false
}

func trimTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

// hasSuffix matches the last components of a name of any registry.
func hasSuffix(k *knownImage, arg string) bool {
	if arg == "" || trimTag(arg) == arg {
		arg += ":latest"
	}
	return slices.ContainsFunc(k.Names, func(n string) bool { return strings.HasSuffix(n, "/"+arg) })
}

func isShortID(arg string) bool {
	arg = strings.TrimPrefix(arg, "sha256:")
	return arg != "" && strings.Trim(arg, "0123456789abcdef") == ""
}

// layer finds a layer by id, the beginning of an id, or DiffID, and returns it with its ancestors, nearest first.
func (a *app) layer(arg string) ([]*layers.Layer, error) {
	if gone, err := a.nothing(); gone || err != nil {
		return nil, errors.Join(err, a.noStore())
	}
	s, err := a.store()
	if err != nil {
		return nil, err
	}
	all, err := s.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	ids := map[string]bool{}
	for _, l := range all {
		if l.ID == arg || l.UncompressedDigest.String() == arg || slices.Contains(l.Names, arg) {
			return a.chain(l.ID)
		}
		if strings.HasPrefix(l.ID, arg) && arg != "" {
			ids[l.ID] = true
		}
	}
	list := make([]string, 0, len(ids))
	for id := range ids {
		list = append(list, id)
	}
	slices.Sort(list)
	switch len(list) {
	case 0:
		return nil, advise(fmt.Errorf("no layer is called %q: %w", arg, storage.ErrLayerUnknown), "storagectl layers")
	case 1:
		return a.chain(list[0])
	}
	return nil, advise(fmt.Errorf("%q can be any of the layers %s", arg, strings.Join(list, ", ")), "storagectl layers")
}

// chain returns a layer and its ancestors in whichever store, nearest first.
func (a *app) chain(top string) ([]*layers.Layer, error) {
	if top == "" {
		return nil, nil
	}
	cs, err := a.catalogs()
	if err != nil {
		return nil, err
	}
	chain, err := cs.Chain(top)
	if err != nil {
		return nil, advise(codeError{exitDamage, err}, "storagectl check")
	}
	return chain, nil
}

// tree returns the layers of an image, or with layer, that layer alone.
func (a *app) tree(arg string, layer bool) ([]*layers.Layer, error) {
	if layer {
		chain, err := a.layer(arg)
		if err != nil {
			return nil, err
		}
		return chain[:1], nil
	}
	image, err := a.image(arg)
	if err != nil {
		return nil, err
	}
	chain, err := a.chain(image.TopLayer)
	if err == nil && len(chain) == 0 {
		err = advise(fmt.Errorf("image %s has no layers", arg), "storagectl show %s", short(image.ID))
	}
	return chain, err
}
