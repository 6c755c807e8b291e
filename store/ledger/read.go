package ledger

import (
	"cmp"
	"math"
	"slices"

	"github.com/ostree-storage/ostree-storage/store/object"
)

// A reader takes accounts apart. Once something is wrong all is bad, and numbers are 0.
type reader struct {
	text    string
	bad     bool
	objects []Object
	arena   []Use // what accounts' lists are cut from
}

func (r *reader) uvarint() uint64 {
	var n uint64
	for i := 0; i < len(r.text) && i < 10; i++ {
		c := r.text[i]
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.text = r.text[i+1:]
			return n
		}
	}
	r.bad = true
	return 0
}

// upTo reads a number that is not larger than high.
func (r *reader) upTo(high uint64) uint64 {
	n := r.uvarint()
	if n > high {
		r.bad = true
		return 0
	}
	return n
}

// bytes reads an amount.
func (r *reader) bytes() int64 { return int64(r.upTo(most)) }

func (r *reader) cut(n uint64) string {
	if n > uint64(len(r.text)) {
		r.bad = true
		return ""
	}
	var s string
	s, r.text = r.text[:n], r.text[n:]
	return s
}

func (r *reader) string() string { return r.cut(r.uvarint()) }

func (r *reader) stamp() Stamp {
	ino, sec := r.uvarint(), r.uvarint()
	return Stamp{Ino: ino, Sec: int64(sec>>1) ^ -int64(sec&1), Nsec: uint32(r.upTo(math.MaxUint32))}
}

func (r *reader) account(a *Account) {
	a.ID = r.string()
	if a.Commit = int32(r.upTo(math.MaxInt32)); int(a.Commit) >= len(r.objects) || r.objects[a.Commit].Name.Type != object.TypeCommit {
		r.bad = true
	}
	a.Dir, a.Diff = r.stamp(), r.stamp()
	a.Ref, a.RefBytes, a.Dirs, a.Own = r.uvarint(), r.bytes(), r.bytes(), r.bytes()
	a.Uses = r.uses(int(r.upTo(uint64(len(r.text)))))
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		a.Others = append(a.Others, Other{Ino: r.uvarint(), Names: int32(r.upTo(math.MaxInt32)), Path: r.string(), Lane: r.string()})
	}
}

func (r *reader) uses(n int) []Use {
	if cap(r.arena)-len(r.arena) < n {
		r.arena = make([]Use, 0, max(1<<16, n))
	}
	from := len(r.arena)
	at := uint64(0)
	for i := 0; i < n && !r.bad; i++ {
		word := r.upTo(math.MaxUint32)
		at += word >> 2
		names := int32(word & 3)
		if names >= 2 {
			names = int32(r.upTo(math.MaxInt32))
		}
		if at >= uint64(len(r.objects)) || i > 0 && word>>2 == 0 {
			r.bad = true
			return nil
		}
		r.arena = append(r.arena, Use{int32(at), names})
	}
	return r.arena[from:len(r.arena):len(r.arena)]
}

// ordered are an account's uses with the places that the objects have in the file.
func (a *Account) ordered(place []int32) []Use {
	out := make([]Use, len(a.Uses))
	for i, u := range a.Uses {
		out[i] = Use{place[u.Object], u.Names}
	}
	slices.SortFunc(out, func(x, y Use) int { return cmp.Compare(x.Object, y.Object) })
	return out
}
