package store

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/ledger"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// A layerLook is what a look at one layer found.
type layerLook struct {
	account ledger.Account
	commit  object.Checksum
	reached []sizedName
	dir     dirLook
	keep    bool // the account may be kept

	unrecorded bool // there is no record
	absent     bool // nor is there a directory
}

type sizedName struct {
	name object.Name
	size int64
}

// lookAtEach looks at layers of which nothing is known that holds.
func (l *Ledger) lookAtEach(ctx context.Context, fresh []string, tree bool) error {
	const batch = 8 * chunk
	for done := 0; done < len(fresh); done += batch {
		if err := l.lookAtSome(ctx, fresh[done:min(done+batch, len(fresh))], tree); err != nil {
			return err
		}
	}
	return nil
}

func (l *Ledger) lookAtSome(ctx context.Context, ids []string, tree bool) error {
	if err := l.Wait(); err != nil {
		return err
	}
	looks := make([]layerLook, len(ids))
	err := onAllCores(len(ids), func(i int) error {
		looks[i].account.ID = ids[i]
		return l.readCommit(ctx, &looks[i])
	})
	if err != nil {
		return err
	}
	var asked []int32
	for i := range looks {
		at := l.enter(&looks[i])
		l.state[at], l.unrecorded[at] = reread, looks[i].unrecorded
		asked = append(asked, at)
	}
	if !tree {
		return nil
	}
	if err := l.findFiles(asked); err != nil {
		return err
	}
	l.knowInodes(asked)
	err = onAllCores(len(looks), func(i int) error {
		return l.lookAtTree(&looks[i])
	})
	for i := range looks {
		if at, _ := l.book.Account(ids[i]); err == nil {
			l.enterTree(at, &looks[i])
		}
	}
	return err
}

// readCommit reads what a layer's commit reaches. What a crash left of a layer may have a directory, or a ref, and no record.
func (l *Ledger) readCommit(ctx context.Context, look *layerLook) error {
	commit, err := l.layers.Commit(look.account.ID)
	if errors.Is(err, fs.ErrNotExist) {
		look.unrecorded = true
		commit, err = l.r.readRef(headsDir + "/" + l.layers.Ref(look.account.ID))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil || commit.IsZero() {
		return err
	}
	look.commit = commit
	c, err := (&Objects{l.r}).ReadCommit(commit)
	if err != nil {
		return err
	}
	sizes := map[object.Checksum]int64{}
	err = l.layers.Sizes(ctx, commit, func(sum object.Checksum, size int64) { sizes[sum] = size })
	if err != nil {
		return err
	}
	seen := map[object.Name]struct{}{}
	add := func(n object.Name) {
		if _, ok := seen[n]; ok {
			return
		}
		seen[n] = struct{}{}
		size, ok := sizes[n.Checksum]
		if !ok || n.Type != object.TypeFile {
			size = ledger.NoSize
		}
		look.reached = append(look.reached, sizedName{n, size})
	}
	add(object.Name{Checksum: commit, Type: object.TypeCommit})
	return l.r.eachReached(ctx, c, map[object.Checksum]struct{}{}, add)
}

// enter puts what a commit reaches into the book.
func (l *Ledger) enter(look *layerLook) int32 {
	a := &look.account
	a.Commit = ledger.NoCommit
	a.Uses = make([]ledger.Use, len(look.reached))
	for i, r := range look.reached {
		n := l.book.Number(r.name)
		if r.size != ledger.NoSize {
			l.book.Objects[n].Size = r.size
		}
		a.Uses[i] = ledger.Use{Object: n}
		if r.name.Type == object.TypeCommit {
			a.Commit = n
		}
	}
	look.reached = nil
	at := l.book.Put(*a)
	l.grow()
	return at
}

// knowInodes notes which object the inodes are that the accounts' trees may have.
func (l *Ledger) knowInodes(asked []int32) {
	if l.byIno == nil {
		l.byIno = map[uint64]int32{}
	}
	for _, i := range asked {
		for _, u := range l.book.Accounts[i].Uses {
			if f := &l.found[u.Object]; f.ino != 0 && l.book.Objects[u.Object].Name.Type == object.TypeFile {
				l.byIno[f.ino] = u.Object
				if o := &l.book.Objects[u.Object]; o.Ino == 0 {
					o.Ino = f.ino
				}
			}
		}
	}
}

// A dirLook is what is in a layer's directory.
type dirLook struct {
	l       *Ledger
	buf     []byte
	account *ledger.Account
	names   map[int32]int32 // of objects' own files
	others  map[uint64]int  // places in the account's list
	far     []seenInode     // inodes whose path is too long to be found again
	filed   bool            // it may have an inode list with lane files
	strange bool            // something is there that ledgers do not know
}

// lookAtTree looks at a layer's directory and all below it.
func (l *Ledger) lookAtTree(look *layerLook) error {
	now := time.Now()
	dir := int(l.layers.Dir().Fd())
	a := &look.account
	var own, upper unix.Stat_t
	err := lstat(dir, a.ID, &own)
	if err == unix.ENOENT {
		look.absent = true
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: a.ID, Err: err}
	}
	d := &look.dir
	*d = dirLook{l: l, buf: make([]byte, 1<<15), account: a, names: map[int32]int32{}, others: map[uint64]int{}}
	if err := d.all(dir, a.ID, ""); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "list", Path: a.ID, Err: err}
	}
	for i, u := range a.Uses {
		a.Uses[i].Names = d.names[u.Object]
		delete(d.names, u.Object)
	}
	if d.filed {
		if err := l.lanesOf(d); err != nil {
			return err
		}
	}
	l.refOf(a, look.commit)
	if lstat(dir, a.ID+"/"+l.parts.Upper, &upper) != nil {
		return nil
	}
	a.Dir, a.Diff = stamp(&own), stamp(&upper)
	look.keep = !look.unrecorded && stampOf(dir, a.ID) == a.Dir && !d.strange && a.Commit != ledger.NoCommit && len(d.names) == 0 &&
		Settled(&own, now) && Settled(&upper, now)
	return nil
}

// all looks at a directory; path is its place below the layer's directory, with a slash at its end, "" for that itself.
func (d *dirLook) all(dir int, name, path string) error {
	fd, err := openDir(dir, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	d.account.Dirs += st.Blocks * 512
	empty := slices.Contains(d.l.parts.Empty, strings.TrimSuffix(path, "/")) // or should be
	var subs []string
	err = index.EachEntry(fd, d.buf, func(name string, ino uint64, kind uint8) error {
		d.strange = d.strange || empty
		if n, ok := d.l.byIno[ino]; ok && path != "" && kind != unix.DT_DIR && kind != unix.DT_UNKNOWN {
			d.names[n]++
			return nil
		}
		if kind != unix.DT_DIR {
			if err := lstat(fd, name, &st); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT != unix.S_IFDIR {
				d.file(fd, name, path, &st)
				return nil
			}
		}
		if path == "" && !slices.Contains(d.l.parts.Trees, name) && !slices.Contains(d.l.parts.Empty, name) {
			d.strange = true
		}
		subs = append(subs, name)
		return nil
	})
	for i := 0; i < len(subs) && err == nil; i++ {
		err = d.all(fd, subs[i], path+subs[i]+"/")
	}
	return err
}

// file takes a name that is no object's own file.
func (d *dirLook) file(dir int, name, path string, st *unix.Stat_t) {
	if path == "" {
		if name == inodesName {
			d.filed = listsLanes(dir)
		}
		if slices.Contains(d.l.parts.Files, name) && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
			d.account.Own += st.Blocks * 512
			return
		}
		d.strange = true
	}
	i, ok := d.others[st.Ino]
	if !ok {
		i = len(d.account.Others)
		d.others[st.Ino] = i
		d.account.Others = append(d.account.Others, ledger.Other{Ino: st.Ino, Path: path + name})
	}
	d.account.Others[i].Names++
	if len(path) > longPath {
		d.far = append(d.far, seen(st))
		d.strange = true
	}
}

// longPath is from where on a path below a layer's directory may be too long for one call.
const longPath = 3000

// lanesOf notes the lane files that the layer's inode list names.
func (l *Ledger) lanesOf(d *dirLook) error {
	list, err := mapInodes(l.layers.Dir().Name() + "/" + d.account.ID + "/" + inodesName)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errStale) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range list.filed {
		ino, id := list.lane(i)
		if at, ok := d.others[ino]; ok {
			d.account.Others[at].Lane = id.path()
		}
	}
	return list.Close()
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

// refOf notes the file of a layer's ref, if that is a counted one and names the layer's commit.
func (l *Ledger) refOf(a *ledger.Account, commit object.Checksum) {
	var st unix.Stat_t
	if commit.IsZero() || lstat(int(l.r.heads.Fd()), l.layers.Ref(a.ID), &st) != nil {
		return
	}
	if ino, _ := l.r.countedNames(commit); ino == st.Ino {
		a.Ref, a.RefBytes = st.Ino, st.Blocks*512
	}
}

// enterTree puts what a look found into the book.
func (l *Ledger) enterTree(at int32, look *layerLook) {
	if look.absent {
		l.state[at] = absent
		return
	}
	l.book.Accounts[at] = look.account
	l.state[at], l.others[at] = lookedAt, nil
	for n, names := range look.dir.names { // objects that the tree has and the commit does not reach: an inode like others
		others := &l.book.Accounts[at].Others
		*others = append(*others, ledger.Other{Ino: l.found[n].ino, Names: names})
	}
	for _, f := range look.dir.far {
		if _, ok := l.inodes[f.ino]; !ok {
			l.inodes[f.ino] = int32(len(l.nodes))
			l.nodes = append(l.nodes, node{seenInode: f})
		}
	}
	if look.keep {
		l.state[at] = kept
		if int(at) >= l.saved {
			l.changes++
		}
	}
	look.dir = dirLook{}
}
