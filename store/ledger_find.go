package store

import (
	"encoding/hex"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

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

// chunk is how many files or layers one goroutine takes at a time.
const chunk = 256

// inChunks divides n things among all cores.
func inChunks(n int, do func(from, to int) error) error {
	return onAllCores((n+chunk-1)/chunk, func(c int) error { return do(c*chunk, min((c+1)*chunk, n)) })
}

// A seenInode is what there is to know of a file.
type seenInode struct {
	ino   uint64
	links int32
	bytes int64
}

func seen(st *unix.Stat_t) seenInode {
	return seenInode{ino: st.Ino, links: int32(st.Nlink), bytes: st.Blocks * 512}
}

// findFiles finds the file objects that the accounts use.
func (l *Ledger) findFiles(asked []int32) error {
	var numbers []int32
	for _, i := range asked {
		for _, u := range l.book.Accounts[i].Uses {
			if f := &l.found[u.Object]; !f.asked && l.book.Objects[u.Object].Name.Type == object.TypeFile {
				f.asked = true
				numbers = append(numbers, u.Object)
			}
		}
	}
	return l.find(numbers)
}

// find finds objects, by number.
func (l *Ledger) find(numbers []int32) error {
	if slices.Sort(numbers); len(numbers) > 0 && int(numbers[len(numbers)-1]) >= l.book.Sorted() { // one directory after the other
		slices.SortFunc(numbers, func(x, y int32) int { return l.book.Objects[x].Name.Compare(l.book.Objects[y].Name) })
	}
	return inChunks(len(numbers), func(from, to int) error {
		d := objectDir{fd: -1}
		defer d.close()
		for _, n := range numbers[from:to] {
			name := &l.book.Objects[n].Name
			var st unix.Stat_t
			if err := d.lstat(l.r, name, &st); err == nil {
				l.found[n].seenInode = seen(&st)
			} else if err != unix.ENOENT {
				return placeError("look for", name.LoosePath(), err)
			}
			l.found[n].asked = true
		}
		return nil
	})
}

// An objectDir is the last of the directories of objects that was needed: du looks at hundreds of thousands, one directory after the
// other, and half of a path is half of what it costs to follow it.
type objectDir struct {
	first byte
	fd    int
	name  [80]byte
}

func (d *objectDir) lstat(r *root, n *object.Name, st *unix.Stat_t) error {
	if d.fd < 0 || d.first != n.Checksum[0] {
		d.close()
		fd, err := unix.Openat(int(r.objects.Fd()), hex.EncodeToString(n.Checksum[:1]), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		d.fd, d.first = fd, n.Checksum[0]
	}
	b := hex.AppendEncode(d.name[:0], n.Checksum[1:])
	b = append(append(append(b, '.'), n.Type.String()...), 0)
	_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(d.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(st)),
		unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (d *objectDir) close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
	d.fd = -1
}

// An otherName is where a node may be found.
type otherName struct {
	node       int32
	path, lane string
	ino        uint64
}

// findOthers finds the inodes of the accounts' trees that are no object's own file.
func (l *Ledger) findOthers(asked []int32) {
	var names []otherName
	for _, i := range asked {
		a := &l.book.Accounts[i]
		if l.others[i] != nil || len(a.Others) == 0 {
			continue
		}
		l.others[i] = make([]int32, len(a.Others))
		for k, o := range a.Others {
			if n, ok := l.byIno[o.Ino]; ok {
				l.others[i][k] = -1 - n
				continue
			}
			at, ok := l.inodes[o.Ino]
			if !ok {
				at = int32(len(l.nodes))
				l.inodes[o.Ino] = at
				l.nodes = append(l.nodes, node{})
				names = append(names, otherName{node: at, path: a.ID + "/" + o.Path})
			}
			l.others[i][k] = at
			if o.Lane != "" {
				names = append(names, otherName{node: at, lane: o.Lane, ino: o.Ino})
			}
		}
	}
	lanes := make([]bool, len(names))
	_ = inChunks(len(names), func(from, to int) error {
		for k, name := range names[from:to] {
			var st unix.Stat_t
			switch {
			case name.lane != "":
				lanes[from+k] = l.r.lanes != nil && lstat(int(l.r.lanes.Fd()), name.lane, &st) == nil && st.Ino == name.ino
			case lstat(int(l.layers.Dir().Fd()), name.path, &st) == nil: // else the account does not hold, or the layer goes just now
				l.nodes[name.node].seenInode = seen(&st)
			}
		}
		return nil
	})
	for k, there := range lanes {
		if there {
			l.nodes[names[k].node].lane = true
		}
	}
}
