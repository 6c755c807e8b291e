package layers

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	xattrRecord    = "SCHILY.xattr."
)

// header returns the tar header of an entry, or nil if the entry has none: it is a socket, it vanished, or nobody in the
// container owns it.
func (t *treeTar) header(e *walkEntry) (*tar.Header, error) {
	hdr, err := t.makeHeader(e)
	if vanished(err) || errors.Is(err, errUnmapped) {
		t.skip(e.path, err)
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: "/" + e.path, Err: err}
	}
	return hdr, nil
}

func (t *treeTar) makeHeader(e *walkEntry) (*tar.Header, error) {
	hdr := &tar.Header{
		Name:    e.path,
		Mode:    int64(e.st.Mode & 0o7777),
		Uid:     int(e.st.Uid),
		Gid:     int(e.st.Gid),
		ModTime: wholeSeconds(e.st.Mtim),
	}
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, e.st.Size
	case unix.S_IFDIR:
		hdr.Typeflag, hdr.Name = tar.TypeDir, e.path+"/"
	case unix.S_IFLNK:
		target, err := e.dir.readlink(e.name)
		if err != nil {
			return nil, err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if e.st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(uint64(e.st.Rdev))), int64(unix.Minor(uint64(e.st.Rdev)))
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFSOCK:
		return nil, nil
	default:
		return nil, fmt.Errorf("unknown file type %#o", e.st.Mode&unix.S_IFMT)
	}
	t.speak(e, hdr)
	attrs, err := t.attrs(e.attrs())
	if err != nil {
		return nil, err
	}
	if len(attrs) > 0 {
		hdr.PAXRecords = make(map[string]string, len(attrs))
		for name, value := range attrs {
			hdr.PAXRecords[xattrRecord+name] = value
		}
	}
	if !e.isDir() && e.st.Nlink > 1 {
		if first, ok := t.seen[inodeOf(&e.st)]; ok {
			hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
		}
	}
	return hdr, t.mapOwner(e, hdr)
}

// mapOwner sets the owner as the container sees it.
//
// The kernel makes whiteouts as the user that mounted, who need not have an id in the container. containers/storage then
// drops the whiteout, and the removed file is back in the committed image; here it keeps its owner, which means nothing.
func (t *treeTar) mapOwner(e *walkEntry, hdr *tar.Header) error {
	if t.ids.empty() || strings.HasPrefix(e.name, whiteoutPrefix) {
		return nil
	}
	uid, gid, err := t.ids.owner(e.st.Uid, e.st.Gid)
	if err != nil && e.isWhiteout() {
		return nil
	}
	hdr.Uid, hdr.Gid = uid, gid
	return err
}

// wholeSeconds cuts a time to the second before it: archive/tar would round.
func wholeSeconds(t unix.Timespec) time.Time { return time.Unix(int64(t.Sec), 0) }

// asWhiteout turns the header of overlay's mark for a removed name into that of a layer tar. Its other fields stay, also the
// name of an earlier whiteout of the same inode: overlayfs makes whiteouts as hardlinks of one inode.
func asWhiteout(hdr *tar.Header) {
	dir, name := path.Split(hdr.Name)
	hdr.Name = path.Join(dir, whiteoutPrefix+name)
	hdr.Mode, hdr.Typeflag, hdr.Size = 0, tar.TypeReg, 0
}

// opaqueHeader returns the entry that says that a directory hides what is below it.
func opaqueHeader(dir *tar.Header) *tar.Header {
	return &tar.Header{
		Typeflag: tar.TypeReg,
		Mode:     dir.Mode & 0o777,
		Name:     path.Join(dir.Name, opaqueName),
		Uid:      dir.Uid,
		Uname:    dir.Uname,
		Gid:      dir.Gid,
		Gname:    dir.Gname,
	}
}

// write writes an entry's header and content.
func (t *treeTar) write(ctx context.Context, e *walkEntry, hdr *tar.Header) error {
	content := -1
	if hdr.Typeflag == tar.TypeReg && hdr.Size > 0 {
		fd, err := openContent(e)
		if vanished(err) {
			t.skip(e.path, err)
			return nil
		}
		if err != nil {
			return &fs.PathError{Op: "open", Path: "/" + e.path, Err: err}
		}
		defer unix.Close(fd)
		content = fd
	}
	err := t.tw.WriteHeader(hdr)
	if err == nil && content >= 0 {
		err = t.copyContent(ctx, content, hdr.Size)
	}
	if err != nil {
		return fmt.Errorf("write /%s to tar: %w", e.path, err)
	}
	t.link(e, hdr)
	return nil
}

// openContent opens a regular file that may be replaced at any moment by something whose mere opening has an effect.
func openContent(e *walkEntry) (int, error) {
	fd, err := retryEINTR(func() (int, error) {
		return unix.Openat(e.dir.fd, e.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || inodeOf(&st) != inodeOf(&e.st)) {
		err = unix.ESTALE
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// copyContent copies size bytes of a file into the tar. What was appended since is not copied.
func (t *treeTar) copyContent(ctx context.Context, fd int, size int64) error {
	if t.buf == nil {
		t.buf = make([]byte, 256<<10)
	}
	for size > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := t.buf[:min(size, int64(len(t.buf)))]
		n, err := retryEINTR(func() (int, error) { return unix.Read(fd, b) })
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("file shrank while it was read: %w", io.ErrUnexpectedEOF)
		}
		if _, err := t.tw.Write(b[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}
