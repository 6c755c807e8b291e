package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// A file is an entry of a tree and the layer that it comes from.
type file struct {
	layers.Entry
	from *layers.Layer
}

// load reads what only the file's object says.
func (f *file) load() error {
	if err := f.Load(f.from.Catalog().Repo()); err != nil {
		return advise(codeError{exitDamage, err}, "storagectl check")
	}
	return nil
}

// eachFile visits the merged tree of a chain, or of one layer all that it has, whiteouts too.
func eachFile(ctx context.Context, chain []*layers.Layer, alone bool, visit func(*file) error) error {
	if alone {
		l := chain[0]
		return l.Walk(ctx, func(e *layers.Entry) error { return visit(&file{*e, l}) })
	}
	m, err := layers.Merge(ctx, chain)
	if err != nil {
		return advise(err, "storagectl check")
	}
	return m.Walk(ctx, func(e *layers.Entry, l *layers.Layer) error { return visit(&file{*e, l}) })
}

// clean makes a path relative to the root of a tree.
func clean(p string) string {
	p = path.Clean("/" + p)
	if p == "/" {
		return "."
	}
	return p[1:]
}

// maxLinks is how many symbolic links are followed on the way to one file.
const maxLinks = 40

// A forest finds files by path.
type forest map[string]*file

func grow(ctx context.Context, chain []*layers.Layer, alone bool) (forest, error) {
	t := forest{}
	err := eachFile(ctx, chain, alone, func(f *file) error {
		if !f.Whiteout {
			t[f.Path] = f
		}
		return nil
	})
	return t, err
}

var errLoop = errors.New("too many symbolic links")

// find follows symbolic links in the tree, the last one too, and never leaves it.
func (t forest) find(p string) (*file, error) {
	at, rest := ".", clean(p)
	for links := 0; rest != "." && rest != ""; {
		var first string
		first, rest, _ = strings.Cut(rest, "/")
		switch first {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, first)
		f := t[next]
		if f == nil {
			return nil, fmt.Errorf("%s: %w", printable("/"+next), unix.ENOENT)
		}
		if f.Mode&unix.S_IFMT != unix.S_IFLNK {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return nil, fmt.Errorf("%s: %w", printable(p), errLoop)
		}
		if err := f.load(); err != nil {
			return nil, err
		}
		if strings.HasPrefix(f.Target, "/") {
			at = "."
		}
		rest = strings.TrimPrefix(f.Target, "/") + "/" + rest
	}
	if f := t[at]; f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("%s: %w", printable(p), unix.ENOENT)
}

// modeString writes a mode as ls -l does.
func modeString(mode uint32) string {
	kind := map[uint32]byte{
		unix.S_IFDIR: 'd', unix.S_IFREG: '-', unix.S_IFLNK: 'l', unix.S_IFCHR: 'c', unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's',
	}[mode&unix.S_IFMT]
	b := []byte{kind}
	const rwx = "rwxrwxrwx"
	for i := range 9 {
		if mode&(1<<(8-i)) != 0 {
			b = append(b, rwx[i])
		} else {
			b = append(b, '-')
		}
	}
	for _, special := range []struct {
		bit   uint32
		place int
		x, no byte
	}{{unix.S_ISUID, 3, 's', 'S'}, {unix.S_ISGID, 6, 's', 'S'}, {unix.S_ISVTX, 9, 't', 'T'}} {
		if mode&special.bit == 0 {
			continue
		}
		if b[special.place] == 'x' {
			b[special.place] = special.x
		} else {
			b[special.place] = special.no
		}
	}
	return string(b)
}
