package store

import (
	"encoding/binary"
	"os"
	"runtime"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// onAllCores calls do for 0 to n-1, on as many goroutines as there are cores.
func onAllCores(n int, do func(i int) error) error {
	var next atomic.Int64
	var g errgroup.Group
	for range min(n, runtime.GOMAXPROCS(0)) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(i); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// A seenInode is what du needs to know of a file.
type seenInode struct {
	ino   uint64
	links int32
	bytes int64
}

func seen(st *unix.Stat_t) seenInode {
	return seenInode{ino: st.Ino, links: int32(st.Nlink), bytes: st.Blocks * 512}
}

// chunk is how many objects or directories one goroutine takes at a time.
const chunk = 256

// lookAtObjects finds the inodes of objects, by number.
func (x *freeing) lookAtObjects(numbers []int32) error {
	x.of = make([]int32, len(x.names))
	numbers = slices.Clone(numbers)
	slices.SortFunc(numbers, func(a, b int32) int { return x.names[a].Compare(x.names[b]) }) // one directory after the other
	found := make([]seenInode, len(numbers))
	err := onAllCores((len(numbers)+chunk-1)/chunk, func(c int) error {
		for i := c * chunk; i < min((c+1)*chunk, len(numbers)); i++ {
			var st unix.Stat_t
			path := x.names[numbers[i]].LoosePath()
			switch err := lstat(int(x.r.objects.Fd()), path, &st); {
			case err == nil:
				found[i] = seen(&st)
			case err != unix.ENOENT:
				return placeError("look for", path, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, n := range numbers {
		if x.of[n] = noInode; found[i].ino != 0 {
			x.of[n] = x.node(found[i])
			x.nodes[x.of[n]].object = x.names[n].Type == object.TypeFile
		}
	}
	return nil
}

// A dirLook is what is in a directory and below it.
type dirLook struct {
	bytes int64
	inos  []uint64    // of all that is no directory
	files []seenInode // of them, those that were not known
	filed bool        // it may have an inode list with lane files
}

// lookAtDirs looks at directories that go, after the objects: an inode that is known is not asked for again.
func (x *freeing) lookAtDirs(paths []string) error {
	looks := make([]dirLook, len(paths))
	err := onAllCores((len(paths)+chunk-1)/chunk, func(c int) error {
		buf := make([]byte, 1<<15)
		for i := c * chunk; i < min((c+1)*chunk, len(paths)); i++ {
			if err := x.lookAt(unix.AT_FDCWD, paths[i], &looks[i], buf, 0); err != nil && err != unix.ENOENT {
				return &os.PathError{Op: "list", Path: paths[i], Err: err}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, path := range paths {
		look := &looks[i]
		d := &goingDir{bytes: look.bytes, inodes: make([]int32, 0, len(look.inos))}
		x.dirs[path] = d
		for _, f := range look.files {
			x.node(f)
		}
		for _, ino := range look.inos {
			d.inodes = append(d.inodes, x.inos[ino])
		}
		if look.filed {
			if err := x.listed(d, path); err != nil {
				return err
			}
		}
		looks[i] = dirLook{}
	}
	return nil
}

func (x *freeing) lookAt(dir int, name string, look *dirLook, buf []byte, depth int) error {
	fd, err := openDir(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	look.bytes += st.Blocks * 512
	var subs []string
	err = index.EachEntry(fd, buf, func(name string, ino uint64, kind uint8) error {
		if kind == unix.DT_DIR {
			subs = append(subs, name)
			return nil
		}
		if depth == 0 && name == inodesName {
			look.filed = listsLanes(fd)
		}
		if _, ok := x.inos[ino]; !ok || kind == unix.DT_UNKNOWN {
			if err := lstat(fd, name, &st); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				subs = append(subs, name)
				return nil
			}
			look.files = append(look.files, seen(&st))
			ino = st.Ino
		}
		look.inos = append(look.inos, ino)
		return nil
	})
	for i := 0; i < len(subs) && err == nil; i++ {
		err = x.lookAt(fd, subs[i], look, buf, depth+1)
	}
	return err
}

// listsLanes tells if the inode list in a directory has lane files, or cannot be read.
func listsLanes(dir int) bool {
	fd, err := openRead(dir, inodesName)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	var header [inodesHeader]byte
	n, err := retry(func() (int, error) { return unix.Pread(fd, header[:], 0) })
	return err != nil || n < len(header) || binary.LittleEndian.Uint64(header[24:]) != 0
}
