package store

import (
	"encoding/hex"
	"math/bits"
	"runtime"
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
	if err := l.Wait(); err != nil {
		return err
	}
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
	var dirs objectDirs
	defer dirs.close()
	if err := dirs.open(l, numbers); err != nil {
		return err
	}
	numbers = l.byInode(numbers)
	return inChunks(len(numbers), func(from, to int) error {
		// Numbers are far from each other: to fetch many names, and to put down many findings, takes less than one after the other.
		var names [chunk]object.Name
		var files [chunk]foundFile
		for k, n := range numbers[from:to] {
			names[k] = l.book.Objects[n].Name
		}
		var buf [80]byte
		for k := range names[:to-from] {
			var st unix.Stat_t
			if err := dirs.lstat(&names[k], &buf, &st); err == nil {
				files[k].seenInode = seen(&st)
			} else if err != unix.ENOENT {
				return placeError("look for", names[k].LoosePath(), err)
			}
			files[k].asked = true
		}
		for k, n := range numbers[from:to] {
			l.found[n] = files[k]
		}
		return nil
	})
}

// byInode puts objects into the order of the inodes that they had, roughly: what is beside each other on the disk and in memory is
// found a fifth faster than by name. Numbers are in the order of names themselves.
func (l *Ledger) byInode(numbers []int32) []int32 {
	var last uint64
	for _, n := range numbers {
		last = max(last, l.book.Objects[n].Ino)
	}
	const most = 16 // bits
	shift := max(bits.Len64(last)-most, 0)
	starts := make([]int32, 1<<most+1)
	for _, n := range numbers {
		starts[l.book.Objects[n].Ino>>shift+1]++
	}
	for i := range starts[1:] {
		starts[i+1] += starts[i]
	}
	out := make([]int32, len(numbers))
	for _, n := range numbers {
		at := &starts[l.book.Objects[n].Ino>>shift]
		out[*at] = n
		*at++
	}
	return out
}

// objectDirs are descriptors, less one, of the directories of objects that are needed: half of a path is half of what it costs to follow it,
// for hundreds of thousands of objects.
type objectDirs [256]int

func (d *objectDirs) open(l *Ledger, numbers []int32) error {
	var needed [256]bool
	for _, n := range numbers {
		needed[l.book.Objects[n].Name.Checksum[0]] = true
	}
	for i := range d {
		if !needed[i] {
			continue
		}
		name := hex.EncodeToString([]byte{byte(i)})
		fd, err := unix.Openat(int(l.r.objects.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil && err != unix.ENOENT {
			return placeError("open", "objects/"+name, err)
		}
		d[i] = fd + 1
	}
	return nil
}

func (d *objectDirs) lstat(n *object.Name, buf *[80]byte, st *unix.Stat_t) error {
	if d[n.Checksum[0]] == 0 {
		return unix.ENOENT
	}
	b := hex.AppendEncode(buf[:0], n.Checksum[1:])
	return quickStat(d[n.Checksum[0]]-1, append(append(b, '.'), n.Type.String()...), st)
}

// quickStat is lstat for those who ask for hundreds of thousands of files. It makes no string, and does not tell the scheduler: of what is in
// memory, that takes a tenth of the time. The byte after the path is written.
func quickStat(dir int, path []byte, st *unix.Stat_t) error {
	path = append(path, 0)
	_, _, errno := unix.RawSyscall6(unix.SYS_NEWFSTATAT, uintptr(dir), uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(st)),
		unix.AT_SYMLINK_NOFOLLOW, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (d *objectDirs) close() {
	for _, fd := range d {
		if fd > 0 {
			unix.Close(fd - 1)
		}
	}
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
