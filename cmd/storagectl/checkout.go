package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

type checkoutAnswer struct {
	Image string `json:"image"`
	Dir   string `json:"dir"`
	Way   string `json:"way"`
	Note  string `json:"note,omitempty"`

	Labels *labelsAnswer `json:"labels,omitempty"`
}

type labelsAnswer struct {
	Policy    string   `json:"policy"`
	Files     int64    `json:"files"`
	New       int64    `json:"new"`
	NewBytes  int64    `json:"new_bytes"`
	Conflicts []string `json:"conflicts"`
}

const checkoutHelp = `Writes what a container of the image would see into DIR, which is made if it does not exist and must be empty if it does.

Files are hardlinks to the store's own inodes where DIR is on the same mount: that costs no data, and whoever writes to such a file
writes to every image that has it. With --copy, or on another mount, they are copies, reflinked where the filesystem can.
Devices, fifos and files whose link count is exact are made anew in either case.

With --selinux-policy every file, directory and link gets the SELinux label that a policy gives its path: POLICY is a directory such as
/etc/selinux/default, or auto for the image's own policy, or else this machine's. What the policy leaves alone (<<none>>, or no rule)
keeps the label of the store, or none. Files with labels are inodes of their own, which containers of the image do not have and other
checkouts with the same labels share; they are reflinks where the filesystem can. The kernel need not have SELinux. Such a checkout is
on the store's mount, or made with --copy.`

func (a *app) checkoutCommand() *cobra.Command {
	var layer, copies bool
	var policy string
	c := &cobra.Command{
		Use:   "checkout IMAGE DIR",
		Short: "Write the whole tree of an image into a directory",
		Long:  checkoutHelp,
		Args:  cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			chain, err := a.tree(args[0], layer)
			if err != nil {
				return err
			}
			return a.checkout(chain, args[0], args[1], policy, layers.Flat{Copy: copies})
		},
	}
	c.Flags().BoolVar(&layer, "layer", false, "IMAGE is a layer")
	c.Flags().BoolVar(&copies, "copy", false, "copy files instead of linking them")
	c.Flags().StringVar(&policy, "selinux-policy", "", "label files from the `POLICY` in a directory, or auto")
	return c
}

func (a *app) checkout(chain []*layers.Layer, image, dir, policy string, form layers.Flat) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	ctx := context.Background()
	v := checkoutAnswer{Image: image, Dir: dir, Way: "hardlinks"}
	if policy != "" {
		found, err := a.policy(ctx, chain, policy)
		if err != nil {
			return err
		}
		v.Labels = &labelsAnswer{Policy: found.place}
		form.Labels = &layers.Labels{Of: found.label}
	}
	// The place must be free; an empty directory is replaced.
	switch err := os.Remove(dir); {
	case err == nil, errors.Is(err, os.ErrNotExist):
	case errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return refused(advise(fmt.Errorf("%s is not empty", dir), "storagectl checkout %s %s.new", image, dir))
	default:
		return advise(fmt.Errorf("use %s: %w", dir, err), "storagectl checkout %s %s.new", image, dir)
	}
	m, err := layers.Merge(ctx, chain)
	if err != nil {
		return advise(err, "storagectl check")
	}
	err = form.Materialise(ctx, m, dir)
	if errors.Is(err, unix.EXDEV) && form.Labels == nil {
		form.Copy, v.Note = true, "the directory is not on the mount of the store, so files are copied"
		if err = os.RemoveAll(dir); err == nil {
			err = form.Materialise(ctx, m, dir)
		}
	}
	if form.Copy {
		v.Way = "copies"
	}
	if err != nil {
		return a.noCheckout(errors.Join(fmt.Errorf("check %s out: %w", image, err), os.RemoveAll(dir)), &v, policy)
	}
	return a.answerCheckout(&v, form.Labels)
}

// noCheckout says what to try instead.
func (a *app) noCheckout(err error, v *checkoutAnswer, policy string) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return advise(refused(err), "storagectl checkout --copy --selinux-policy %s %s %s", policy, v.Image, v.Dir)
	case errors.Is(err, layers.ErrUnsupported):
		return advise(refused(err), "storagectl checkout --copy %s %s", v.Image, v.Dir)
	}
	return advise(err, "storagectl checkout --copy %s %s", v.Image, v.Dir)
}

func (a *app) answerCheckout(v *checkoutAnswer, l *layers.Labels) error {
	rows := []string{row("Directory", v.Dir), row("Files are", v.Way)}
	if v.Note != "" {
		rows = append(rows, row("Note", v.Note))
	}
	if l != nil {
		v.Labels.Files, v.Labels.New, v.Labels.NewBytes = l.Labelled, l.New, l.NewBytes
		v.Labels.Conflicts = append([]string{}, l.Conflicts...)
		rows = append(rows, row("Labels of", v.Labels.Policy), row("Labelled", count(int(l.Labelled), "file")),
			row("New lanes", fmt.Sprintf("%d, of files of %s", l.New, size(l.NewBytes))))
		for _, c := range l.Conflicts {
			rows = append(rows, row("Conflict", printable(c)))
		}
	}
	return a.answer(v, "", rows)
}

// label is the label of a path, "" where the policy leaves it alone.
func (p *foundPolicy) label(path string, mode uint32) string {
	label, ok := p.Label(path, mode)
	if !ok {
		return ""
	}
	return label
}
