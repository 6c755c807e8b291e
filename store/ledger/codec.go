package ledger

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"unsafe"

	"github.com/ostree-storage/ostree-storage/store/object"
)

const (
	magic      = "OSledgr1"
	headerSize = 32 // magic, u64 objects, u64 accounts, u32 CRC-32C of all that follows, u32 zero
	objectSize = 48 // checksum, u64 type and size, u64 inode
	accountMin = 14 // an account has no fewer bytes
	most       = 1 << 50
)

// ErrDamaged says that bytes are not a ledger that this version wrote.
var ErrDamaged = errors.New("the ledger is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the file of a book: the accounts that keep wants, in order, and the objects that they use.
func (b *Book) Encode(keep func(*Account) bool) []byte {
	var kept []*Account
	used := make([]bool, len(b.Objects))
	for i := range b.Accounts {
		a := &b.Accounts[i]
		if a.Commit == NoCommit || !keep(a) {
			continue
		}
		kept = append(kept, a)
		for _, u := range a.Uses {
			used[u.Object] = true
		}
	}
	order := b.ByName()
	le := binary.LittleEndian
	out := make([]byte, headerSize, headerSize+objectSize*len(order)+200*len(kept))
	place := make([]int32, len(b.Objects))
	n := int32(0)
	for _, i := range order {
		if !used[i] {
			continue
		}
		o := &b.Objects[i]
		place[i] = n
		n++
		out = append(out, o.Name.Checksum[:]...)
		out = le.AppendUint64(out, uint64(o.Size+1)<<3|uint64(o.Name.Type))
		out = le.AppendUint64(out, o.Ino)
	}
	for _, a := range kept {
		out = a.append(out, place)
	}
	copy(out, magic)
	le.PutUint64(out[8:], uint64(n))
	le.PutUint64(out[16:], uint64(len(kept)))
	le.PutUint32(out[24:], crc32.Checksum(out[headerSize:], castagnoli))
	return out
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func (s Stamp) append(b []byte) []byte {
	b = binary.AppendVarint(binary.AppendUvarint(b, s.Ino), s.Sec)
	return binary.AppendUvarint(b, uint64(s.Nsec))
}

// append appends an account. Objects are written as differences of their places in order; who has no name in the tree or one, as
// nearly all have, takes no room for their number.
func (a *Account) append(b []byte, place []int32) []byte {
	b = binary.AppendUvarint(appendText(b, a.ID), uint64(place[a.Commit]))
	b = a.Diff.append(a.Dir.append(b))
	for _, n := range []uint64{a.Ref, uint64(a.RefBytes), uint64(a.Dirs), uint64(a.Own), uint64(len(a.Uses))} {
		b = binary.AppendUvarint(b, n)
	}
	last := int32(0)
	for _, u := range a.ordered(place) {
		b = binary.AppendUvarint(b, uint64(u.Object-last)<<2|uint64(min(u.Names, 2)))
		if u.Names >= 2 {
			b = binary.AppendUvarint(b, uint64(u.Names))
		}
		last = u.Object
	}
	b = binary.AppendUvarint(b, uint64(len(a.Others)))
	for _, o := range a.Others {
		b = binary.AppendUvarint(binary.AppendUvarint(b, o.Ino), uint64(o.Names))
		b = appendText(appendText(b, o.Path), o.Lane)
	}
	return b
}

// Decode reads the file of a book, which keeps the bytes. What it returns can be used without checks: numbers are those of objects, and sums
// stay small.
func Decode(file []byte) (*Book, error) {
	le := binary.LittleEndian
	if len(file) < headerSize || string(file[:8]) != magic || le.Uint32(file[28:]) != 0 ||
		le.Uint32(file[24:]) != crc32.Checksum(file[headerSize:], castagnoli) {
		return nil, ErrDamaged
	}
	n, accounts, body := le.Uint64(file[8:]), le.Uint64(file[16:]), file[headerSize:]
	if n > uint64(len(body)/objectSize) || n > math.MaxInt32 || accounts > uint64(len(body)/accountMin) {
		return nil, ErrDamaged
	}
	b := &Book{
		Objects: make([]Object, n), Accounts: make([]Account, accounts), sorted: int(n),
		fresh: map[object.Name]int32{}, byID: make(map[string]int32, accounts),
	}
	for i := range b.Objects {
		from := body[i*objectSize : (i+1)*objectSize]
		word, o := le.Uint64(from[32:]), &b.Objects[i]
		*o = Object{Name: object.Name{Checksum: object.Checksum(from), Type: object.Type(word & 7)}, Size: int64(word>>3) - 1, Ino: le.Uint64(from[40:])}
		switch {
		case o.Name.Type < object.TypeFile, o.Name.Type > object.TypeCommit, o.Size > most,
			o.Name.Type != object.TypeFile && o.Size != NoSize, i > 0 && b.Objects[i-1].Name.Compare(o.Name) >= 0:
			return nil, ErrDamaged
		}
	}
	text := body[n*objectSize:]
	r := &reader{text: unsafe.String(unsafe.SliceData(text), len(text)), objects: b.Objects}
	for i := range b.Accounts {
		r.account(&b.Accounts[i])
		if r.bad {
			return nil, ErrDamaged
		}
		b.byID[b.Accounts[i].ID] = int32(i)
	}
	if r.text != "" || len(b.byID) != len(b.Accounts) {
		return nil, ErrDamaged
	}
	return b, nil
}
