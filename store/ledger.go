// What du asks of each layer costs some twenty files to find out, and never changes: what the commit reaches, how the tree's names are
// spread over inodes, what its directories take. The ledger (package ledger) keeps it. It is never believed: an account holds if the
// layer's directory and its upper directory are as they were, and if the inodes that it names are where it says; links are always asked
// of the filesystem. A layer whose account does not hold is looked at, as are all layers where there is no ledger.

package store

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/ledger"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// Layers is what a ledger has to ask about layers, which are directories beside each other.
type Layers interface {
	Dir() *os.File
	Parts() LayerParts
	// Ref is the name of a layer's ref, relative to refs/heads.
	Ref(id string) string
	// Commit is a layer's commit, zero if it has none. The error matches fs.ErrNotExist for a layer that is not there.
	Commit(id string) (object.Checksum, error)
	// Sizes visits the regular files of a commit, some perhaps more than once.
	Sizes(ctx context.Context, commit object.Checksum, visit func(object.Checksum, int64)) error
}

// LayerParts are the names in a layer's directory. A layer that has anything else is looked at each time.
type LayerParts struct {
	Trees []string // directories that do not change once they are there
	Upper string   // what may be written to without a change of the layer's directory
	Empty []string // directories that are empty, Upper among them
	Files []string // the layer's own files, each of one link
}

// A Ledger says what layers take and what goes with them. It is for one goroutine, and for one question: it does not follow changes.
type Ledger struct {
	r          *root
	layers     Layers
	parts      LayerParts
	book       *ledger.Book
	state      []accountState // by account
	found      []foundFile    // by object
	inodes     map[uint64]int32
	nodes      []node           // of inodes that are no object's own file
	others     [][]int32        // by account: the nodes of its Others; of an object's own file -1 less the object's number
	unrecorded map[int32]bool   // accounts of what is no layer, or not yet
	byIno      map[uint64]int32 // objects by inode, where layers are looked at

	dirs  chan struct{} // closed when the layers' directories were compared ahead; nil if nobody looks ahead
	ahead chan error    // closed when all was, with what went wrong before

	saved   int // accounts that the file has
	changes int // accounts that it should have otherwise
}

// An accountState says what is known of an account since the ledger was opened.
type accountState uint8

const (
	unasked  accountState = iota // as the file has it
	sameDir                      // the layer's directory is as it was
	holds                        // so is the upper one
	reread                       // commit and sizes were read; nothing is known of the tree
	lookedAt                     // everything was looked at, and may not be kept
	kept                         // everything was looked at
	absent                       // there is no such layer
)

// A foundFile is an object's own file as it is.
type foundFile struct {
	seenInode
	asked bool
}

// A node is an inode that is no object's own file.
type node struct {
	seenInode
	lane bool // it has a lane file
}

// OpenLedger reads the repository's ledger, if there is one that can be read and useFile is set.
func (r *Repo) OpenLedger(layers Layers, useFile bool) *Ledger {
	l := &Ledger{r: r.root, layers: layers, parts: layers.Parts(), inodes: map[uint64]int32{}, unrecorded: map[int32]bool{}}
	if useFile {
		if file, err := os.ReadFile(r.root.path + "/" + ledgerFile); err == nil {
			l.book, _ = ledger.Decode(file)
		}
	}
	if l.book == nil {
		l.book = ledger.New()
	}
	l.saved = len(l.book.Accounts)
	l.grow()
	return l
}

// grow makes room for accounts and objects that are new.
func (l *Ledger) grow() {
	if n := len(l.book.Accounts) - len(l.state); n > 0 {
		l.state = append(l.state, make([]accountState, n)...)
		l.others = append(l.others, make([][]int32, n)...)
	}
	if n := len(l.book.Objects) - len(l.found); n > 0 {
		l.found = append(l.found, make([]foundFile, n)...)
	}
}

// LookAtCommits finds out what the layers' commits hold; with keep also what is missing to keep it. It gives the layers their places.
func (l *Ledger) LookAtCommits(ctx context.Context, ids []string, keep bool) error {
	var known []int32
	var fresh []string
	for _, id := range ids {
		if i, ok := l.book.Account(id); ok {
			known = append(known, i)
		} else {
			fresh = append(fresh, id)
		}
	}
	l.compare(known, false)
	for _, i := range known {
		if l.state[i] == unasked {
			fresh = append(fresh, l.book.Accounts[i].ID)
		}
	}
	return l.lookAtEach(ctx, fresh, keep)
}

// look finds out what the layers' accounts are that nothing is known of.
func (l *Ledger) look(ctx context.Context, asked []int32) error {
	var fresh []string
	for _, i := range asked {
		if l.state[i] == unasked || l.state[i] == reread {
			fresh = append(fresh, l.book.Accounts[i].ID)
		}
	}
	return l.lookAtEach(ctx, fresh, true)
}

// confirm finds the inodes that the accounts name. It returns whether all are where they should be: else look again.
func (l *Ledger) confirm(asked []int32) (bool, error) {
	if err := l.findFiles(asked); err != nil {
		return false, err
	}
	l.findOthers(asked)
	return !l.disprove(asked), nil
}

// compare finds the accounts that hold as far as the layers' directories say.
func (l *Ledger) compare(asked []int32, tree bool) {
	if l.dirs != nil {
		<-l.dirs
	}
	l.compareNow(asked, tree)
}

func (l *Ledger) compareNow(asked []int32, tree bool) {
	dir := int(l.layers.Dir().Fd())
	_ = inChunks(len(asked), func(from, to int) error {
		var path []byte
		for _, i := range asked[from:to] {
			a := &l.book.Accounts[i]
			if path = append(path[:0], a.ID...); l.state[i] == unasked && stampAt(dir, path) == a.Dir {
				l.state[i] = sameDir
			}
			if tree && l.state[i] == sameDir {
				path = append(append(path, '/'), l.parts.Upper...)
				if l.state[i] = unasked; stampAt(dir, path) == a.Diff {
					l.state[i] = holds
				}
			}
		}
		return nil
	})
}

// LookAhead begins to look at all that the ledger's file has, while others find out what will be asked.
func (l *Ledger) LookAhead() {
	l.dirs, l.ahead = make(chan struct{}), make(chan error, 1)
	accounts, objects := upTo(len(l.book.Accounts)), upTo(len(l.book.Objects))
	go func() {
		l.compareNow(accounts, true)
		close(l.dirs)
		l.ahead <- l.find(objects)
		close(l.ahead)
	}()
}

// Wait waits until what was looked at ahead is known. Until then only what layers and objects are may be read.
func (l *Ledger) Wait() error {
	if l.ahead == nil {
		return nil
	}
	return <-l.ahead
}

// upTo are the numbers from 0 to n-1.
func upTo(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

// stampOf is the stamp of a directory, zero if it is not there.
func stampOf(dir int, path string) ledger.Stamp { return stampAt(dir, []byte(path)) }

func stampAt(dir int, path []byte) ledger.Stamp {
	var st unix.Stat_t
	if quickStat(dir, path, &st) != nil {
		return ledger.Stamp{}
	}
	return stamp(&st)
}

func stamp(st *unix.Stat_t) ledger.Stamp {
	return ledger.Stamp{Ino: st.Ino, Sec: st.Ctim.Sec, Nsec: uint32(st.Ctim.Nsec)}
}

// disprove finds accounts that do not agree with the inodes that are there, and gives them up. It returns whether there are any.
func (l *Ledger) disprove(asked []int32) bool {
	names := map[int32]int32{} // by object: how many names are claimed, where they are more than links
	claims := make([]int32, len(l.book.Objects))
	for _, i := range asked {
		for _, u := range l.book.Accounts[i].Uses {
			claims[u.Object] += u.Names
		}
	}
	for n, claimed := range claims {
		own := int32(0)
		if l.found[n].links > 0 {
			own = 1
		}
		if claimed > 0 && (l.found[n].ino != l.book.Objects[n].Ino || claimed+own > l.found[n].links) {
			names[int32(n)] = claimed
		}
	}
	stale := false
	for i := range l.book.Accounts {
		if l.state[i] == holds && (l.otherIsWrong(int32(i)) || len(names) > 0 && l.claims(int32(i), names)) {
			l.state[i] = unasked
			stale = true
			continue
		}
		if l.state[i] == unasked && len(names) > 0 && l.claims(int32(i), names) {
			l.book.Accounts[i].Dir = ledger.Stamp{} // it will not hold
			l.changes++
		}
	}
	for n := range names {
		l.book.Objects[n].Ino = l.found[n].ino
	}
	if stale {
		clear(l.inodes)
		clear(l.others)
		l.nodes = nil
	}
	return stale
}

func (l *Ledger) claims(i int32, names map[int32]int32) bool {
	for _, u := range l.book.Accounts[i].Uses {
		if _, ok := names[u.Object]; ok && u.Names > 0 {
			return true
		}
	}
	return false
}

// otherIsWrong tells if an inode of an account's own is not where it says. Nobody has looked for those of an account that is not asked.
func (l *Ledger) otherIsWrong(i int32) bool {
	if l.others[i] == nil {
		return false
	}
	for n, o := range l.book.Accounts[i].Others {
		if at := l.others[i][n]; at < 0 || l.nodes[at].ino != o.Ino || l.nodes[at].links < o.Names {
			return true
		}
	}
	return false
}

// NoPlace is the place of a layer that was not looked at, or is not there.
const NoPlace = -1

// At returns the place of a layer that was looked at, and whether it has a record, without which it is what a crash left.
func (l *Ledger) At(id string) (at int32, recorded bool) {
	i, ok := l.book.Account(id)
	if !ok || l.state[i] == absent || l.state[i] == unasked {
		return NoPlace, false
	}
	return i, !l.unrecorded[i]
}

// Places returns how many layers have a place.
func (l *Ledger) Places() int { return len(l.book.Accounts) }

// Uses returns the numbers of the distinct objects of a layer's commit, regular files among them.
func (l *Ledger) Uses(at int32) []ledger.Use { return l.book.Accounts[at].Uses }

// Objects returns how many objects have a number.
func (l *Ledger) Objects() int { return len(l.book.Objects) }

// File returns the checksum and the size of a regular file; the size is negative for all else.
func (l *Ledger) File(number int32) (object.Checksum, int64) {
	return l.book.Objects[number].Name.Checksum, l.book.Objects[number].Size
}
