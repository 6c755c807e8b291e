package index

import (
	"io"
	"testing"
)

// FuzzFile: a list or run that is taken can be searched, checked and merged, whatever it says.
func FuzzFile(f *testing.F) {
	f.Add(AppendList(nil, []Key{1, 5, 1 << 60}), false)
	run := append(AppendList(nil, []Key{1, 5}), 1, 0, 0, 0, 2, 0, 0, 0)
	copy(run, runMagic)
	f.Add(run, true)
	f.Fuzz(func(t *testing.T, b []byte, run bool) {
		magic := listMagic
		if run {
			magic = runMagic
		}
		if len(b) < headerSize {
			return
		}
		k, err := parse(b, "fuzz", magic)
		if err != nil {
			return
		}
		sums := make([]int32, 3)
		k.addTo(sums, []Key{0, 5, 1 << 63}, 1)
		if k.sorted("fuzz") != nil {
			return
		}
		last, some := Key(0), false
		err = merge([]*source{{keyed: k, sign: 1}}, func(k Key, n int32) error {
			if some && k <= last || n == 0 {
				return io.ErrUnexpectedEOF
			}
			last, some = k, true
			return nil
		})
		if err != nil {
			t.Errorf("merged out of order or with a count of nothing at %x", last)
		}
	})
}
