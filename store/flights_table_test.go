package store

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

func someKey(n uint64) *flightKey {
	k := &flightKey{time: Time{Sec: int64(n)}}
	binary.LittleEndian.PutUint64(k.sum[:], n*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(k.sum[8:], n)
	return k
}

// TestFlightTable: what was told last is found, however much was told before.
func TestFlightTable(t *testing.T) {
	table := openFlightTable("")
	defer table.close()
	if !table.usable() {
		t.Fatal("no slots")
	}
	dir, name := t.TempDir(), "file"
	if err := os.WriteFile(dir+"/"+name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	want, _, err := unix.NameToHandleAt(int(d.Fd()), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	told := uint64(3 * flightSlots)
	for n := range told {
		slot, mine := table.find(someKey(n))
		if slot == nil || !mine {
			t.Fatalf("file %d: %v, %t", n, slot, mine)
		}
		slot.land(int(d.Fd()), name, nil)
	}
	for range 1000 {
		n := told - 1 - rand.Uint64N(flightSlots/1000)
		slot, mine := table.find(someKey(n))
		if mine {
			slot.land(-1, "", unix.EIO) // another one took its slot
			continue
		}
		if h, ok := slot.wait(someKey(n)); !ok || string(h.Bytes()) != string(want.Bytes()) || h.Type() != want.Type() {
			t.Fatalf("file %d: %v, %t", n, h, ok)
		}
	}
}

// TestFlightThatNeverLands: nobody waits for ever for a process that died, and those who come after it begin anew.
func TestFlightThatNeverLands(t *testing.T) {
	path := testfs.Memory(t) + "/run/pulls"
	dead, alive := openFlightTable(path), openFlightTable(path)
	if dead.file == nil || alive.file == nil {
		t.Skip("no tmpfs here")
	}
	if !dead.usable() || !alive.usable() {
		t.Fatal("no slots")
	}
	if slot, mine := dead.find(someKey(1)); slot == nil || !mine {
		t.Fatal("not the first")
	}
	dead.head.stages.Add(5)
	if err := errors.Join(unix.Munmap(dead.mem), dead.file.Close()); err != nil { // as the kernel does for a dead process
		t.Fatal(err)
	}
	slot, mine := alive.find(someKey(1))
	if slot == nil || mine {
		t.Fatal("not told")
	}
	began := time.Now()
	if _, ok := slot.wait(someKey(1)); ok || time.Since(began) < maxFlight/2 {
		t.Errorf("waited %v, %t", time.Since(began), ok)
	}
	alive.close()
	next := openFlightTable(path)
	defer next.close()
	if next.head.stages.Load() != 0 || !next.usable() {
		t.Error("what the dead left is still there")
	}
	if _, mine := next.find(someKey(1)); !mine {
		t.Error("a file of the dead")
	}
}
