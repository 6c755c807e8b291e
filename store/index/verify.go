package index

import (
	"fmt"
	"slices"
)

// Verify compares the sums of the runs with the lists that they were merged from. It returns the first key whose count is
// not the number of lists that have it, or nil. Who changes the index meanwhile can make it find what is not there: the
// caller holds the shared lock, or looks again. A file that is not what the index wrote is a *DamagedError.
func (x *Index) Verify() (wrong *Key, err error) {
	if err := x.read(); err != nil {
		return nil, err
	}
	base, err := x.merged()
	if err != nil {
		return nil, err
	}
	taken := x.manifest.Moved
	for _, folder := range []string{"new", "lists"} {
		names, err := x.names(folder)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if folder == "new" && !slices.Contains(taken, name) {
				continue // it counts for itself
			}
			if wrong, err = base.strike(x, folder+"/"+name); wrong != nil || err != nil {
				return wrong, err
			}
		}
	}
	for i, n := range base.counts {
		if n != 0 {
			return &base.keys[i], nil
		}
	}
	return nil, nil
}

// sums are keys with their counts.
type sums struct {
	keys   []Key
	counts []int32
}

// merged adds up the runs, less what is dropped.
func (x *Index) merged() (*sums, error) {
	var inputs []*source
	defer func() {
		for _, in := range inputs {
			in.close()
		}
	}()
	take := func(path, magic string, sign int32) error {
		k, err := open(x.dir, path, magic)
		if err == nil {
			inputs = append(inputs, &source{keyed: k, sign: sign})
			err = k.sorted(path)
		}
		return err
	}
	for _, run := range x.manifest.Runs {
		if err := take("runs/"+run.Name, runMagic, +1); err != nil {
			return nil, err
		}
	}
	dropped, err := x.names("dropped")
	if err != nil {
		return nil, err
	}
	for _, name := range dropped {
		if slices.Contains(x.manifest.Applied, name) {
			continue
		}
		if err := take("dropped/"+name, listMagic, -1); err != nil {
			return nil, err
		}
	}
	all := new(sums)
	err = merge(inputs, func(k Key, n int32) error {
		all.keys, all.counts = append(all.keys, k), append(all.counts, n)
		return nil
	})
	return all, err
}

// strike subtracts a list, and returns the first of its keys that was not counted.
func (s *sums) strike(x *Index, path string) (*Key, error) {
	k, err := open(x.dir, path, listMagic)
	if err != nil {
		return nil, err
	}
	defer k.close()
	if err := k.sorted(path); err != nil {
		return nil, err
	}
	at := 0
	for i := range k.n {
		want := k.key(i)
		found, ok := slices.BinarySearch(s.keys[at:], want)
		if at += found; !ok {
			return &want, nil
		}
		s.counts[at]--
	}
	return nil, nil
}

// sorted tells a file whose keys are not in order.
func (k *keyed) sorted(path string) error {
	for i := 1; i < k.n; i++ {
		if k.key(i-1) >= k.key(i) {
			return damaged(path, fmt.Sprintf("its keys are not in order at %d", i))
		}
	}
	return nil
}
