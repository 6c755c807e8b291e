package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"slices"
	"testing"

	"github.com/ostree-storage/ostree-storage/store/object"
)

func name(text string, t object.Type) object.Name {
	return object.Name{Checksum: object.Sum([]byte(text)), Type: t}
}

// sample is a book of a few layers, which share some objects.
func sample() *Book {
	b := New()
	for i := range 5 {
		commit := b.Number(name(fmt.Sprint("commit", i), object.TypeCommit))
		a := Account{
			ID: fmt.Sprint("layer", i), Commit: commit, Dir: Stamp{uint64(100 + i), -5, 999_999_999}, Diff: Stamp{uint64(200 + i), 1 << 40, 0},
			Ref: uint64(300 + i), RefBytes: 4096, Dirs: 8192, Own: 512, Uses: []Use{{commit, 0}},
			Others: []Other{{Ino: 7, Names: 3, Path: "tree/etc/passwd", Lane: "ab/cd.1.2.3"}, {Ino: uint64(400 + i), Names: 1, Path: "tree/dev/null"}},
		}
		for k := i; k < i+4; k++ {
			n := b.Number(name(fmt.Sprint("file", k), object.TypeFile))
			b.Objects[n].Size, b.Objects[n].Ino = int64(k), uint64(1000+k)
			a.Uses = append(a.Uses, Use{n, int32(k * k * k)})
		}
		b.Put(a)
	}
	return b
}

func everything(*Account) bool { return true }

// plain is an account with names for numbers.
func plain(b *Book, a Account) (Account, map[object.Name]int32) {
	names := map[object.Name]int32{}
	for _, u := range a.Uses {
		names[b.Objects[u.Object].Name] = u.Names
	}
	names[b.Objects[a.Commit].Name] += 1 << 20 // which of them it is
	a.Uses, a.Commit = nil, 0
	return a, names
}

func TestWhatIsEncodedIsDecoded(t *testing.T) {
	b := sample()
	file := b.Encode(everything)
	for range 2 { // of a book that was read nothing else is written
		again, err := Decode(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range b.Accounts {
			i, ok := again.Account(want.ID)
			if !ok {
				t.Fatalf("no account of %s", want.ID)
			}
			x, xNames := plain(b, want)
			y, yNames := plain(again, again.Accounts[i])
			if !reflect.DeepEqual(x, y) || !reflect.DeepEqual(xNames, yNames) {
				t.Errorf("%+v %v was read as %+v %v", x, xNames, y, yNames)
			}
		}
		for _, o := range b.Objects {
			if n, ok := again.Find(o.Name); !ok || again.Objects[n] != o {
				t.Errorf("object %+v was not found", o)
			}
		}
		next := again.Encode(everything)
		if !bytes.Equal(next, file) {
			t.Error("the second file is another")
		}
	}
}

// TestNumbersOfOldAndNew: objects that come after those of a file have numbers too, and places among them in the next file.
func TestNumbersOfOldAndNew(t *testing.T) {
	b, err := Decode(sample().Encode(func(a *Account) bool { return a.ID != "layer4" }))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Account("layer4"); ok || len(b.Accounts) != 4 {
		t.Error("what nobody wanted is in the file")
	}
	if _, ok := b.Find(name("file7", object.TypeFile)); ok {
		t.Error("an object that no account has is in the file")
	}
	known := len(b.Objects)
	commit := b.Number(name("commit4", object.TypeCommit))
	b.Put(Account{ID: "layer4", Commit: commit, Uses: []Use{{b.Number(name("file7", object.TypeFile)), 1}, {commit, 0}, {0, 1}}})
	if len(b.Objects) != known+2 || b.Number(name("commit4", object.TypeCommit)) != commit {
		t.Errorf("%d objects, there were %d", len(b.Objects), known)
	}
	order := b.ByName()
	if len(order) != len(b.Objects) || !slices.IsSortedFunc(order, func(x, y int32) int { return b.Objects[x].Name.Compare(b.Objects[y].Name) }) {
		t.Errorf("order %v", order)
	}
	again, err := Decode(b.Encode(everything))
	if err != nil || len(again.Accounts) != 5 || len(again.Objects) != len(b.Objects) {
		t.Errorf("%v", err)
	}
}

// TestDamageIsFound: no file that differs in a bit or is cut short is read.
func TestDamageIsFound(t *testing.T) {
	file := sample().Encode(everything)
	for i := range file {
		b := bytes.Clone(file)
		b[i] ^= 1 << (i % 8)
		if _, err := Decode(b); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := Decode(file[:i]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d bytes: %v", i, err)
		}
	}
}

// sealed gives a file the right checksum.
func sealed(file []byte) []byte {
	if len(file) >= headerSize {
		binary.LittleEndian.PutUint32(file[24:], crc32.Checksum(file[headerSize:], castagnoli))
	}
	return file
}

// TestHostileFiles: who can compute a checksum gets a book that can be used, or none.
func TestHostileFiles(t *testing.T) {
	file := sample().Encode(everything)
	read := 0
	for i := range file {
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff} {
			b := bytes.Clone(file)
			b[i] = v
			read += use(t, sealed(b))
		}
	}
	if read < len(file) || read == 5*len(file) {
		t.Errorf("%d of %d were read", read, 5*len(file))
	}
	huge := bytes.Clone(file)
	binary.LittleEndian.PutUint64(huge[16:], 1<<40)
	if use(t, sealed(huge)) > 0 {
		t.Error("a number of accounts was believed")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode(everything))
	f.Fuzz(func(t *testing.T, file []byte) { use(t, sealed(bytes.Clone(file))) })
}

// use reads a file, and if that works looks at all that it says. It returns whether it does.
func use(t *testing.T, file []byte) int {
	t.Helper()
	b, err := Decode(file)
	if err != nil {
		return 0
	}
	for i := range b.Accounts {
		a := &b.Accounts[i]
		if b.Objects[a.Commit].Name.Type != object.TypeCommit {
			t.Errorf("account %q has no commit", a.ID)
		}
		for _, u := range a.Uses {
			if b.Objects[u.Object].Size < NoSize || u.Names < 0 {
				t.Errorf("account %q: %+v", a.ID, u)
			}
		}
		if at, ok := b.Account(a.ID); !ok || int(at) != i {
			t.Errorf("account %q is elsewhere", a.ID)
		}
	}
	b.Encode(everything)
	return 1
}
