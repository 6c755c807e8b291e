package layers_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/layers"
)

// TestFreesOfMany: what is asked of many sets at once is what is asked of each alone, and costs about what one set of all costs.
func TestFreesOfMany(t *testing.T) {
	const many = 150
	c, err := layers.OpenCatalog(testfs.Mount(t, "ext4")+"/home", layers.Options{NoSync: true})
	must(t, err)
	defer c.Close()
	var all []string
	var sets [][]string
	for i := range many {
		id := fmt.Sprintf("layer%03d", i)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range []string{"own", "common", "etc/private"} {
			text := []byte(name + " of a pair, at least")
			if name != "common" {
				text = fmt.Appendf(nil, "%s of %s", name, id)
			} else {
				text = fmt.Appendf(text, "%d", i/2)
			}
			must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(int64(i), 0)}))
			_, err := w.Write(text)
			must(t, err)
		}
		must(t, w.Close())
		_, err := c.Create(id, "", layers.CreateOptions{})
		must(t, err)
		s, err := c.Stage(context.Background(), &b, layers.StageOptions{})
		must(t, err)
		must(t, c.Commit(id, s))
		must(t, s.Close())
		all, sets = append(all, id), append(sets, []string{id})
	}
	together, err := c.Frees(context.Background(), append([][]string{all}, sets...)...)
	must(t, err)
	var objects int64
	for i, ids := range append([][]string{all}, sets...) {
		if i%10 > 1 {
			continue
		}
		alone, err := c.Frees(context.Background(), ids)
		must(t, err)
		if alone[0] != together[i] {
			t.Errorf("set %d: %+v alone, %+v among others", i, alone[0], together[i])
		}
	}
	for _, f := range together[1:] {
		objects += f.Objects
	}
	if common := int64(many / 2); objects+common > together[0].Objects || together[1].Private == 0 || together[1].Lanes != 0 {
		t.Errorf("%d objects by themselves, and all together %+v", objects, together[0])
	}
	var one, each []time.Duration
	for range 5 {
		one = append(one, cpu(t, func() error { _, err := c.Frees(context.Background(), all); return err }))
		each = append(each, cpu(t, func() error { _, err := c.Frees(context.Background(), sets...); return err }))
	}
	if a, b := slices.Min(one), slices.Min(each); b > 3*a {
		t.Errorf("%d sets of a layer cost %v, one set of them all %v", many, b, a)
	} else {
		t.Logf("%d sets of a layer cost %v, one set of them all %v", many, b, a)
	}
}

// cpu is the time that this process computes.
func cpu(t *testing.T, do func() error) time.Duration {
	t.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	must(t, do())
	return used() - before
}
