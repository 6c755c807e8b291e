package main

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

type fileAnswer struct {
	Path     string            `json:"path"`
	Type     string            `json:"type"`
	Mode     string            `json:"mode"`
	UID      uint32            `json:"uid"`
	GID      uint32            `json:"gid"`
	Size     int64             `json:"size"`
	Modified string            `json:"modified"`
	Target   string            `json:"target,omitempty"`
	Device   string            `json:"device,omitempty"`
	Link     string            `json:"hardlink_to,omitempty"`
	Checksum string            `json:"checksum,omitempty"`
	Layer    string            `json:"layer"`
	Xattrs   map[string]string `json:"xattrs,omitempty"`
	Opaque   bool              `json:"opaque,omitempty"`
}

func (a *app) lsCommand() *cobra.Command {
	var layer, recursive, long bool
	c := &cobra.Command{
		Use:   "ls IMAGE [PATH]",
		Short: "List the files of an image or a layer, without mounting it",
		Long: `Lists a directory of the image as a container would see it, or with --layer what one layer holds, its whiteouts too.
It reads commits and trees; files only for -l and --format json.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			chain, err := a.tree(args[0], layer)
			if err != nil {
				return err
			}
			l := &listing{a: a, alone: layer, recursive: recursive, long: long}
			if len(args) == 2 {
				l.at = args[1]
			}
			return l.print(chain)
		},
	}
	c.Flags().BoolVar(&layer, "layer", false, "IMAGE is a layer")
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "what is below, too")
	c.Flags().BoolVarP(&long, "long", "l", false, "mode, owner, size and time")
	return c
}

// A listing is one run of ls.
type listing struct {
	a                      *app
	at                     string
	alone, recursive, long bool
	firsts                 map[int]string
}

func (l *listing) print(chain []*layers.Layer) error {
	ctx := context.Background()
	at := "."
	if l.at != "" {
		t, err := grow(ctx, chain, l.alone)
		if err != nil {
			return err
		}
		f, err := t.find(l.at)
		if err != nil {
			return advise(err, "storagectl ls -R %s", short(chain[0].ID))
		}
		at = f.Path
	}
	answers, rows := []fileAnswer{}, []string{}
	l.firsts = map[int]string{}
	err := eachFile(ctx, chain, l.alone, func(f *file) error {
		if f.First == f.Index {
			l.firsts[f.Index] = f.Path
		}
		if !l.wants(at, f) {
			return nil
		}
		if l.long || l.a.format == "json" {
			if err := f.load(); err != nil {
				return err
			}
		}
		answers = append(answers, l.answer(f))
		rows = append(rows, l.row(at, f))
		return nil
	})
	if err != nil {
		return err
	}
	return l.a.answer(answers, "", rows)
}

// wants tells if a file is listed: what is in the directory, or the file itself if it is none.
func (l *listing) wants(at string, f *file) bool {
	if f.Path == at {
		return !f.IsDir()
	}
	if !l.recursive {
		return path.Dir(f.Path) == at
	}
	return at == "." || strings.HasPrefix(f.Path, at+"/")
}

var typeNames = map[uint32]string{
	0: "whiteout", unix.S_IFDIR: "directory", unix.S_IFREG: "file", unix.S_IFLNK: "symlink", unix.S_IFCHR: "char", unix.S_IFBLK: "block", unix.S_IFIFO: "fifo",
}

func (l *listing) answer(f *file) fileAnswer {
	v := fileAnswer{
		Type: typeNames[f.Mode&unix.S_IFMT], Mode: fmt.Sprintf("%04o", f.Mode&0o7777),
		UID: f.UID, GID: f.GID, Size: f.Size, Target: f.Target, Layer: f.from.ID, Opaque: f.Opaque,
		Modified: time.Unix(f.MTime.Sec, int64(f.MTime.Nsec)).UTC().Format(time.RFC3339Nano),
	}
	if f.Path == "." {
		v.Path = "/"
	} else {
		v.Path = "/" + f.Path
	}
	if !f.Checksum.IsZero() && !f.IsDir() {
		v.Checksum = f.Checksum.String()
	}
	if t := f.Mode & unix.S_IFMT; t == unix.S_IFCHR || t == unix.S_IFBLK {
		v.Device = fmt.Sprintf("%d:%d", f.Major, f.Minor)
	}
	if f.First != f.Index {
		v.Link = "/" + l.firsts[f.First]
	}
	for _, x := range f.Xattrs {
		if v.Xattrs == nil {
			v.Xattrs = map[string]string{}
		}
		v.Xattrs[x.Name] = fmt.Sprintf("%x", x.Value)
	}
	return v
}

func (l *listing) row(at string, f *file) string {
	title := f.Path
	if !l.recursive {
		title = path.Base(f.Path)
	} else if at != "." {
		title = strings.TrimPrefix(f.Path, at+"/")
	}
	title = printable(title)
	switch {
	case f.Whiteout:
		title += " (whiteout)"
	case f.IsDir():
		title += "/"
	}
	if !l.long {
		return title
	}
	v := l.answer(f)
	if v.Target != "" {
		title += " -> " + printable(v.Target)
	}
	amount := fmt.Sprint(v.Size)
	if v.Device != "" {
		amount = v.Device
	}
	return row(modeString(f.Mode), fmt.Sprintf("%d:%d", f.UID, f.GID), amount, v.Modified, title)
}

func (a *app) catCommand() *cobra.Command {
	var layer bool
	c := &cobra.Command{
		Use:   "cat IMAGE PATH...",
		Short: "Print files of an image or a layer, without mounting it",
		Long:  "Prints files. Symbolic links are followed within the image.",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			chain, err := a.tree(args[0], layer)
			if err != nil {
				return err
			}
			t, err := grow(context.Background(), chain, layer)
			if err != nil {
				return err
			}
			for _, p := range args[1:] {
				if err := a.cat(t, p); err != nil {
					return advise(err, "storagectl ls %s %s", args[0], path.Dir(path.Clean("/"+p)))
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&layer, "layer", false, "IMAGE is a layer")
	return c
}

func (a *app) cat(t forest, p string) error {
	f, err := t.find(p)
	if err != nil {
		return err
	}
	if !isRegular(f.Mode) {
		return fmt.Errorf("%s is a %s, not a file", printable(p), typeNames[f.Mode&unix.S_IFMT])
	}
	_, from, err := f.from.Catalog().Repo().OpenFile(f.Checksum)
	if err != nil {
		return advise(codeError{exitDamage, err}, "storagectl check")
	}
	defer from.Close()
	a.answered = true
	_, err = io.Copy(a.out, from)
	return err
}
