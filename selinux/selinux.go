// Package selinux knows SELinux labels: the mount label of a container, the label that a repository gives every file,
// and the labels that a policy's file contexts give the files of a host root (docs/design.md, "SELinux").
// It works where the kernel has no SELinux; what is different there is said at each function.
package selinux

import (
	"fmt"
	"strings"

	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"
)

// A host is what the kernel and the policy that it runs say. Tests have others.
type host struct {
	enabled    func() bool
	containers func() (readOnly, file string) // the policy's labels for container files, "" where it has none
	known      func(label string) error       // whether the running policy has such a context
	fileLabel  func(path string) (string, error)
}

var thisHost = host{
	enabled:    selinux.GetEnabled,
	containers: containerLabels,
	known:      selinux.SecurityCheckContext,
	fileLabel:  selinux.FileLabel,
}

// containerLabels reads the policy's contexts for containers. That library offers it as a by-product of reserving
// the labels of a new container, which this gives back.
func containerLabels() (readOnly, file string) {
	process, file, err := label.InitLabels(nil)
	if err != nil {
		return "", ""
	}
	selinux.ReleaseLabel(process)
	//lint:ignore SA1019 it is deprecated for want of users, and here is one
	return selinux.ROFileLabel(), file
}

// MountLabel returns label as a mount takes it: "" where SELinux is off, or where there is none.
// It fails if label is not a context.
func MountLabel(label string) (string, error) { return thisHost.mountLabel(label) }

func (h host) mountLabel(label string) (string, error) {
	if label == "" || !h.enabled() {
		return "", nil
	}
	if err := Validate(label); err != nil {
		return "", fmt.Errorf("mount label: %w", err)
	}
	return label, nil
}

// StoreLabel returns the label that a new repository gives its files if no other is asked for: none where SELinux is
// off, else the type that the policy has for read-only container files. Under a policy without one it is the label of
// /usr, for some label there must be: the kernel gives every inode one, and in a repository it is part of the checksum.
func StoreLabel() string { return thisHost.storeLabel() }

func (h host) storeLabel() string {
	if !h.enabled() {
		return ""
	}
	readOnly, file := h.containers()
	for _, label := range []string{readOnly, withoutCategories(file)} {
		if Validate(label) == nil && h.known(label) == nil {
			return label
		}
	}
	if label, err := h.fileLabel("/usr"); err == nil && Validate(label) == nil {
		return label
	}
	return ""
}

// withoutCategories returns label with the first sensitivity of its level alone: what all containers share.
func withoutCategories(label string) string {
	f := strings.SplitN(label, ":", 4)
	if len(f) < 4 {
		return label
	}
	f[3] = f[3][:len(f[3])-len(strings.TrimLeft(f[3], nameBytes))]
	return strings.Join(f, ":")
}

const (
	nameBytes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."
	// levelBytes make up a level: sensitivities, ranges and categories, as in "s0-s0:c0.c1023,c5".
	levelBytes = nameBytes + "-:,"
	// maxLabel is the longest label, in bytes: the kernel takes a page with a NUL.
	maxLabel = 4095
)

// Validate says what is wrong with label as the context of a file, `user:role:type` or `user:role:type:level`.
// It knows the form only: which names there are is the policy's matter. The empty label is no context.
func Validate(label string) error {
	if len(label) > maxLabel {
		return fmt.Errorf("context %.40q...: %d bytes, more than %d", label, len(label), maxLabel)
	}
	fields := strings.SplitN(label, ":", 4)
	if len(fields) < 3 {
		return fmt.Errorf("context %q: not user:role:type or user:role:type:level", label)
	}
	for i, field := range fields {
		part := [...]string{"user", "role", "type", "level"}[i]
		valid := nameBytes + "-"
		if part == "level" {
			valid = levelBytes
		}
		if field == "" {
			return fmt.Errorf("context %q: no %s", label, part)
		}
		if bad := strings.TrimLeft(field, valid); bad != "" {
			return fmt.Errorf("context %q: %q in the %s", label, bad[:1], part)
		}
	}
	return nil
}
