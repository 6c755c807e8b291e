package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/selinux"
)

// A foundPolicy is a policy and where it was found.
type foundPolicy struct {
	*selinux.Policy
	place string
}

// autoPolicy asks for the policy of the image or, if it has none, of this machine.
const autoPolicy = "auto"

// policyDirs is where policies are; in images of OSTree hosts also below /usr.
var policyDirs = []string{"/etc/selinux", "/usr/etc/selinux"}

// policy finds the policy that --selinux-policy names.
func (a *app) policy(ctx context.Context, chain []*layers.Layer, arg string) (*foundPolicy, error) {
	if arg != autoPolicy {
		p, err := selinux.LoadPolicy(arg)
		if err != nil {
			return nil, advise(refused(fmt.Errorf("read the policy in %s: %w", arg, err)), "storagectl checkout --selinux-policy auto")
		}
		return &foundPolicy{p, arg}, nil
	}
	t, err := grow(ctx, chain, false)
	if err != nil {
		return nil, err
	}
	for _, in := range []struct {
		policyRoot
		where string
	}{{t, "the image"}, {thisMachine{}, "this machine"}} {
		for _, top := range policyDirs {
			dir, err := policyDir(in.policyRoot, top)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			var p *selinux.Policy
			if err == nil {
				p, err = selinux.ReadPolicy(dir, in.Open)
			}
			if err != nil {
				return nil, advise(refused(fmt.Errorf("read the policy of %s: %w", in.where, err)), "storagectl checkout --selinux-policy DIR")
			}
			return &foundPolicy{p, dir + " of " + in.where}, nil
		}
	}
	return nil, advise(refused(fmt.Errorf("neither the image nor this machine has a policy in %s", policyDirs[0])), "storagectl checkout --selinux-policy DIR")
}

// A policyRoot is where /etc/selinux may be.
type policyRoot interface {
	fs.FS
	names(dir string) ([]string, error)
}

// policyDir returns the directory of the policy that config names in SELINUXTYPE, else of the only one. The error matches
// fs.ErrNotExist if there is none.
func policyDir(root policyRoot, top string) (string, error) {
	text, err := fs.ReadFile(root, top+"/config")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.TrimSpace(key) != "SELINUXTYPE" {
			continue
		}
		kind := strings.TrimSpace(value)
		if kind == "" || strings.Contains(kind, "/") || strings.HasPrefix(kind, ".") {
			return "", fmt.Errorf("%s/config: SELINUXTYPE is %q, which is not the name of a directory", top, kind)
		}
		if isPolicy(root, top+"/"+kind) {
			return top + "/" + kind, nil
		}
	}
	names, err := root.names(top)
	if err != nil {
		return "", err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !isPolicy(root, top+"/"+name) })
	switch len(names) {
	case 0:
		return "", fs.ErrNotExist
	case 1:
		return top + "/" + names[0], nil
	}
	slices.Sort(names)
	return "", fmt.Errorf("%s/config says none that is there in SELINUXTYPE, and there are several: %s", top, strings.Join(names, ", "))
}

func isPolicy(root policyRoot, dir string) bool {
	f, err := root.Open(dir + "/contexts/files/file_contexts")
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// thisMachine is the root that this program sees.
type thisMachine struct{}

func (thisMachine) Open(name string) (fs.File, error) { return os.Open(name) }

func (thisMachine) names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Open opens a regular file of the tree. Symbolic links are followed in it.
func (t forest) Open(name string) (fs.File, error) {
	f, err := t.find(name)
	if err != nil {
		return nil, err
	}
	_, body, err := f.from.Catalog().Repo().OpenFile(f.Checksum)
	if err != nil {
		return nil, err
	}
	if body == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return body, nil
}

// names lists a directory of the tree.
func (t forest) names(dir string) ([]string, error) {
	f, err := t.find(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for p := range t {
		if p != "." && path.Dir(p) == f.Path {
			names = append(names, path.Base(p))
		}
	}
	return names, nil
}
