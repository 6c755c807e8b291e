package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A ref is counted if its commit is, and its file has another name here, refs/<commit>. All counted refs of a commit are
// names of one file: its link count says how many there are, and its inode number tells them from others without a look
// into them.
const refsFolder = "refs/"

// SealName is a name among the new lists that is not a list: it goes with them if somebody deletes them all.
const SealName = "seal"

// AddRef counts a ref that is about to get its name: the file name in directory dir becomes a name of the commit's file, or
// that file if there is none. A ref of a commit that is not counted stays as it is, and so does one that the filesystem has
// no link for.
func (x *Index) AddRef(commit object.Checksum, dir int, name string) error {
	if known, err := x.Known(commit); !known || err != nil {
		return err
	}
	ref, next := refsFolder+commit.String(), name+".counted"
	err := x.disk.Link(dir, name, x.fd(), ref)
	if err == unix.EEXIST {
		if reason, err := x.WrongRef(commit); reason != "" || err != nil {
			return err
		}
		if err = x.disk.Link(x.fd(), ref, dir, next); err == nil {
			err = x.disk.Rename(dir, next, dir, name)
		}
	}
	if err != nil && err != unix.EMLINK {
		return &os.LinkError{Op: "link", Old: name, New: ref, Err: err}
	}
	return nil
}

// WrongRef says what is wrong with the file of a commit's refs. A power cut may have torn one that was written without a
// sync.
func (x *Index) WrongRef(commit object.Checksum) (reason string, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/%s%s", x.fd(), refsFolder, commit))
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimRight(string(b), "\n") == commit.String() {
		return "", nil
	}
	return fmt.Sprintf("its refs of commit %s do not name it", commit), err
}

// Ref returns the inode of a commit's counted refs and how many of them there are, wherever; fs.ErrNotExist if none was
// ever counted.
func (x *Index) Ref(commit object.Checksum) (ino uint64, names int, err error) {
	var st unix.Stat_t
	path := refsFolder + commit.String()
	if err := unix.Fstatat(x.fd(), path, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, int(st.Nlink) - 1, nil
}

// Refs lists a directory of refs that was just opened: the counted ones with their commits, and the names of all else. It is
// true to the directory unless that is changed meanwhile: an inode number may go from one file to another between two looks.
func (x *Index) Refs(dir int) (counted map[string]object.Checksum, rest []string, err error) {
	type file struct {
		name string
		ino  uint64
	}
	var commits map[uint64]object.Checksum
	own := make(chan error, 1)
	go func() {
		var err error
		commits, err = x.refs()
		own <- err
	}()
	var files []file
	err = EachEntry(dir, nil, func(name string, ino uint64, kind uint8) error {
		if kind == unix.DT_REG {
			files = append(files, file{name, ino})
		} else {
			rest = append(rest, name)
		}
		return nil
	})
	if err = errors.Join(err, <-own); err != nil {
		return nil, nil, err
	}
	counted = make(map[string]object.Checksum, len(files))
	for _, f := range files {
		if c, ok := commits[f.ino]; ok {
			counted[f.name] = c
		} else {
			rest = append(rest, f.name)
		}
	}
	return counted, rest, nil
}

// refs returns the commits of counted refs by inode number.
func (x *Index) refs() (map[uint64]object.Checksum, error) {
	fd, err := unix.Openat(x.fd(), refsFolder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: refsFolder, Err: err}
	}
	defer unix.Close(fd)
	listed := map[string]bool{}
	for _, folder := range []string{"new", "lists"} {
		names, err := x.names(folder)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			listed[name] = true
		}
	}
	commits := make(map[uint64]object.Checksum, len(listed))
	err = EachEntry(fd, nil, func(name string, ino uint64, kind uint8) error {
		if kind == unix.DT_REG && listed[name] {
			if c, err := object.ParseChecksum(name); err == nil {
				commits[ino] = c
			}
		}
		return nil
	})
	return commits, err
}

// EachEntry visits what is in a directory that was just opened, with inode numbers and kinds (unix.DT_…), which the standard
// library keeps to itself. A buffer may be given, for those who list many.
func EachEntry(dir int, buf []byte, visit func(name string, ino uint64, kind uint8) error) error {
	if buf == nil {
		buf = make([]byte, 1<<16)
	}
	const header = 19 // u64 inode, u64 position, u16 length, u8 kind
	for {
		n, err := unix.Getdents(dir, buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 || err != nil {
			return os.NewSyscallError("getdents", err)
		}
		for b := buf[:n]; len(b) > header; b = b[binary.NativeEndian.Uint16(b[16:]):] {
			name, _, _ := bytes.Cut(b[header:binary.NativeEndian.Uint16(b[16:])], []byte{0})
			if string(name) == "." || string(name) == ".." {
				continue
			}
			if err := visit(string(name), binary.NativeEndian.Uint64(b), b[18]); err != nil {
				return err
			}
		}
	}
}
