package store

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/ledger"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// Wrong looks at layers of which the ledger's file has an account that seems to hold, all of them if ids is nil, and returns those of which
// it says something else. What cannot be read is left out.
func (l *Ledger) Wrong(ctx context.Context, ids []string) ([]string, error) {
	var asked []int32
	for i := range l.book.Accounts {
		if ids == nil || slices.Contains(ids, l.book.Accounts[i].ID) {
			asked = append(asked, int32(i))
		}
	}
	l.compare(asked, true)
	asked = slices.DeleteFunc(asked, func(i int32) bool { return l.state[i] != holds })
	if _, err := l.confirm(asked); err != nil { // what du would not use is not wrong
		return nil, err
	}
	wrong := make([]bool, len(asked))
	err := onAllCores(len(asked), func(k int) error {
		a := &l.book.Accounts[asked[k]]
		if l.state[asked[k]] != holds {
			return nil
		}
		fresh := (&Repo{root: l.r}).OpenLedger(l.layers, false)
		if fresh.LookAtCommits(ctx, []string{a.ID}, true) != nil {
			return ctx.Err()
		}
		is, _ := fresh.book.Account(a.ID)
		// What was changed or removed meanwhile is not kept.
		wrong[k] = fresh.state[is] == kept && fresh.book.Accounts[is].Dir == a.Dir && fresh.book.Accounts[is].Diff == a.Diff &&
			!l.agrees(a, fresh, &fresh.book.Accounts[is])
		return nil
	})
	var out []string
	for k, is := range wrong {
		if is {
			out = append(out, l.book.Accounts[asked[k]].ID)
		}
	}
	return out, err
}

// agrees tells if an account says what that of another ledger says. An index that came or went since makes no difference.
func (l *Ledger) agrees(a *ledger.Account, o *Ledger, b *ledger.Account) bool {
	byIno := func(x, y ledger.Other) int { return cmp.Compare(x.Ino, y.Ino) }
	return a.Dirs == b.Dirs && a.Own == b.Own && (a.Ref == b.Ref || a.Ref == 0 || b.Ref == 0) && l.book.CommitOf(a) == o.book.CommitOf(b) &&
		slices.EqualFunc(slices.SortedFunc(slices.Values(a.Others), byIno), slices.SortedFunc(slices.Values(b.Others), byIno),
			func(x, y ledger.Other) bool { return x.Ino == y.Ino && x.Names == y.Names && x.Lane == y.Lane }) &&
		maps.Equal(l.uses(a), o.uses(b))
}

// A usedFile is what an account says of an object.
type usedFile struct {
	names int32
	size  int64
	ino   uint64 // if the tree has it
}

func (l *Ledger) uses(a *ledger.Account) map[object.Name]usedFile {
	out := make(map[object.Name]usedFile, len(a.Uses))
	for _, u := range a.Uses {
		o := &l.book.Objects[u.Object]
		f := usedFile{names: u.Names, size: max(o.Size, 0)} // of a whiteout there is none, and the object is an empty file
		if u.Names > 0 {
			f.ino = o.Ino
		}
		out[o.Name] = f
	}
	return out
}

// Drop removes the ledger's file.
func (l *Ledger) Drop() error {
	if err := l.r.disk.remove(l.r.fd(), ledgerFile); err != nil && err != unix.ENOENT {
		return placeError("remove", ledgerFile, err)
	}
	return nil
}
