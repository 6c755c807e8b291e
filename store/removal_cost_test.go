package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// crowd adds layers to a world that are nothing but refs, commits and lists.
func crowd(w *world, n int) error {
	r := w.repo.root
	base, err := w.repo.Ref("layer/base")
	if err != nil {
		return err
	}
	like, err := w.repo.ReadCommit(base)
	if err != nil {
		return err
	}
	for i := range n {
		c := *like
		c.Timestamp = uint64(i + 1)
		b, err := c.MarshalBinary()
		if err != nil {
			return err
		}
		name := object.Name{Checksum: object.Sum(b), Type: object.TypeCommit}
		path := r.path + "/objects/" + name.LoosePath()
		err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644))
		if err != nil {
			return err
		}
		keys, err := r.keysOf(context.Background(), name.Checksum)
		if err != nil {
			return err
		}
		list := r.path + "/" + indexDir + "/new/" + name.Checksum.String()
		if err := os.WriteFile(list, index.AppendList(nil, keys), 0o600); err != nil {
			return err
		}
		ref := fmt.Sprintf("%s/%s/crowd%d", r.path, layerRefsDir, i)
		err = os.WriteFile(ref, []byte(name.Checksum.String()+"\n"), 0o644)
		if err = errors.Join(err, os.Link(ref, r.path+"/"+indexDir+"/refs/"+name.Checksum.String())); err != nil {
			return err
		}
	}
	return compactAll(w)
}

// TestRemovalCostsTheLayer: a removal costs what it removes, with ten layers in the store and with four thousand.
func TestRemovalCostsTheLayer(t *testing.T) {
	many, most := 4000, 1.4
	top := testfs.Mount(t, "ext4")
	var worlds [2]*world
	for i, n := range []int{10, many} {
		worlds[i] = newWorld(t, top)
		must(t, worlds[i].apply("base", StageOptions{}, baseFiles...))
		must(t, crowd(worlds[i], n))
		must(t, worlds[i].apply("seals", StageOptions{}, nextFiles...))
		must(t, worlds[i].reap("seals"))
	}
	var took [2][]time.Duration
	for round := range 15 {
		var files []testFile
		for i := range 400 {
			files = append(files, testFile{name: fmt.Sprintf("f%d", i), body: fmt.Sprint(round, i), sec: 1})
		}
		slices.SortFunc(files, func(a, b testFile) int { return strings.Compare(a.name, b.name) })
		for i, w := range worlds {
			must(t, w.apply("mine", StageOptions{NoSync: true}, files...))
			before := cpu(t)
			must(t, w.reap("mine"))
			took[i] = append(took[i], cpu(t)-before)
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	few, all := took[0][len(took[0])/2], took[1][len(took[1])/2]
	t.Logf("median CPU of a removal: %v beside 10 layers, %v beside %d: %.3f", few, all, many, float64(all)/float64(few))
	if ratio := float64(took[1][3]) / float64(took[0][3]); ratio > most {
		t.Errorf("a removal beside %d layers costs %.2f of what it costs beside 10", many, ratio)
	}
	for _, w := range worlds {
		if !w.repo.root.sealed() {
			t.Error("the seal was lost")
		}
		must(t, w.repo.Fsck(context.Background(), FsckOptions{Quick: true}, func(f Finding) { t.Error(f) }))
	}
}

// cpu is the processor time of this process.
func cpu(t *testing.T) time.Duration {
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
