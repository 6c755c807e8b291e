package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	graphdriver "go.podman.io/storage/drivers"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/layers"
)

const (
	imageLayers = 60
	fewImages   = 10
)

// A crowd is a store with so many synthetic images that pulls, mounts and removals in it can be compared with those in another.
type crowd struct {
	name    string // as the rows have it
	dir     string
	images  int
	options graphdriver.Options
	home    string
	times   map[string][]float64
}

// scale does the same to a store of few images and to one of many, in turn.
func (j *job) scale(m *meter, set *fixtures.Set, many int) error {
	list, err := images(set, "busybox", "update-old")
	if err != nil {
		return err
	}
	var crowds []*crowd
	for _, n := range []int{fewImages, many} {
		c := &crowd{name: fmt.Sprintf("beside %d images", n), dir: filepath.Join(j.Dir, fmt.Sprint(n)), images: n, times: map[string][]float64{}}
		c.options = graphdriver.Options{Root: filepath.Join(c.dir, "root"), RunRoot: filepath.Join(j.Run, fmt.Sprint(n))}
		c.home = filepath.Join(c.options.Root, j.Driver)
		began := time.Now()
		if err := c.fill(); err != nil {
			return fmt.Errorf("%d images: %w", n, err)
		}
		m.value(fmt.Sprintf("(making %d images of %d layers)", n, imageLayers), "s", time.Since(began).Seconds())
		crowds = append(crowds, c)
	}
	if err := m.settle(); err != nil {
		return err
	}
	for round := range 9 {
		for i := range crowds {
			c := crowds[(i+round)%len(crowds)]
			if err := c.use(m, j.Driver, list, round); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	for _, what := range []string{
		"start of the driver", "pull of a small image", "pull of an image", "create, mount, unmount, remove ten containers", "remove the small image", "remove the image",
	} {
		for _, c := range crowds {
			list := c.times[what][1:] // the first of all had to read what the others find in memory
			m.rows = append(m.rows, measurement{Row: what + " " + c.name, Seconds: median(list), Times: len(list)})
		}
	}
	for _, c := range crowds {
		if err := c.usage(m); err != nil {
			return err
		}
	}
	return nil
}

// fill makes the images. No two have a layer in common, but most of their files.
func (c *crowd) fill() error {
	for _, dir := range []string{c.options.Root, c.options.RunRoot, c.home} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	m, err := newMaker(c.home)
	if err != nil {
		return err
	}
	if err := errors.Join(m.images(c.images), c.records()); err != nil {
		return err
	}
	// The next publication has the index take in what is new.
	catalog, err := layers.OpenCatalog(c.home, layers.Options{})
	if err != nil {
		return err
	}
	if err := errors.Join(applyTo(catalog, "last", crowdTar(-1, 0)), catalog.Close()); err != nil {
		return err
	}
	// It never has more than some dozens of lists in a store that grew by itself, and ext4 keeps a directory as large as it ever was.
	fresh := filepath.Join(c.home, "repo/extensions/ostree-storage/index/new")
	return errors.Join(os.Remove(fresh), os.Mkdir(fresh, 0o700))
}

func crowdLayer(image, n int) string { return fmt.Sprintf("%032x%032x", image+1, n+1) }

// records writes what containers/storage keeps of the images, for the programs that ask it.
func (c *crowd) records() error {
	type layerRecord struct {
		ID     string    `json:"id"`
		Parent string    `json:"parent,omitempty"`
		Time   time.Time `json:"created"`
		Digest string    `json:"diff-digest"`
		Size   int64     `json:"diff-size"`
	}
	type imageRecord struct {
		ID    string    `json:"id"`
		Names []string  `json:"names"`
		Layer string    `json:"layer"`
		Time  time.Time `json:"created"`
	}
	var ls []layerRecord
	var is []imageRecord
	at := time.Unix(1600000000, 0).UTC()
	for i := range c.images {
		parent := ""
		for n := range imageLayers {
			id := crowdLayer(i, n)
			ls = append(ls, layerRecord{id, parent, at, "sha256:" + id, 200})
			parent = id
		}
		is = append(is, imageRecord{fmt.Sprintf("%064x", i+1), []string{fmt.Sprintf("localhost/crowd:%d", i)}, parent, at})
	}
	name := filepath.Base(c.home)
	return errors.Join(
		writeJSON(filepath.Join(c.options.Root, name+"-layers", "layers.json"), ls),
		writeJSON(filepath.Join(c.options.Root, name+"-images", "images.json"), is),
	)
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// use pulls, mounts and removes. Before each, all that was written reaches the disk.
func (c *crowd) use(m *meter, driver string, list []fixtures.Image, round int) error {
	clock := func(what string, do func() error) error {
		if err := m.settle(); err != nil {
			return err
		}
		began := time.Now()
		err := do()
		c.times[what] = append(c.times[what], time.Since(began).Seconds())
		return err
	}
	var a *applied
	err := clock("start of the driver", func() error {
		d, err := graphdriver.GetDriver(driver, c.options)
		a = &applied{d}
		return err
	})
	if err != nil {
		return err
	}
	small, large := list[0], list[1]
	large.Layers = large.Layers[1:] // a hundred megabytes: nothing of it is in a crowd
	steps := []struct {
		what string
		do   func() error
	}{
		{"pull of a small image", func() error { return a.apply(small, "") }},
		{"pull of an image", func() error { return a.apply(large, "") }},
		{"create, mount, unmount, remove ten containers", func() error { return a.containers(round) }},
		{"remove the small image", func() error { return second2(a.remove(small, "")) }},
		{"remove the image", func() error { return second2(a.remove(large, "")) }},
	}
	for _, s := range steps {
		if err := clock(s.what, s.do); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return a.Cleanup()
}

// containers makes some on an image, volatile ones: of others the kernel syncs the filesystem when it unmounts them, which no driver can spare
// them and takes as long as the disk likes.
func (a *applied) containers(round int) error {
	for n := range 10 {
		name := fmt.Sprint(round, "-", n)
		if err := a.containerOf(crowdLayer(0, imageLayers-1), name, graphdriver.MountOpts{Volatile: true}); err != nil {
			return err
		}
	}
	return nil
}

func second2(_ time.Duration, err error) error { return err }

// maxUsage is how long storagectl du may take here.
const maxUsage = 30 * time.Second

// usage runs storagectl du over everything: first without a ledger, which it makes, then with that. The program is that of make build.
func (c *crowd) usage(m *meter) error {
	tool := filepath.Join("build", "bin", "storagectl")
	var list []float64
	for len(list) < 4 && (len(list) == 0 || list[0] < maxUsage.Seconds()) {
		ctx, cancel := context.WithTimeout(context.Background(), maxUsage)
		began := time.Now()
		cmd := exec.CommandContext(ctx, tool, "--root", c.options.Root, "--runroot", c.options.RunRoot, "du", "--format=json")
		out, err := cmd.CombinedOutput()
		late := ctx.Err() != nil
		cancel()
		if err != nil && !late {
			return fmt.Errorf("%s: %w: %.500s", cmd, err, out)
		}
		list = append(list, time.Since(began).Seconds()) // or the time after which it was ended
	}
	m.rows = append(m.rows, measurement{Row: "storagectl du " + c.name + ", the first", Seconds: list[0], Times: 1})
	if later := list[1:]; len(later) > 0 {
		m.rows = append(m.rows, measurement{Row: "storagectl du " + c.name, Seconds: median(later), Times: len(later)})
	}
	return nil
}
