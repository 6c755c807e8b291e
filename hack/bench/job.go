package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"

	_ "go.podman.io/storage/drivers/overlay"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	_ "github.com/ostree-storage/ostree-storage/plugin"
)

// jobVariable hands a job to the process that does it.
const jobVariable = "OSTREE_STORAGE_BENCH_JOB"

// job is what one process measures on one fresh filesystem.
type job struct {
	Level, Driver string
	Dir           string // of the filesystem
	Run           string // on a tmpfs, as /run is
	Device        string
	Fixtures      string
	Profile       string // file for a CPU profile, or ""
	Image         string // of level put
	Many          int    // files of level memory, images of level scale
}

// runJob does the job and writes its rows to descriptor 3.
func runJob(text string) (err error) {
	var j job
	if err := json.Unmarshal([]byte(text), &j); err != nil {
		return err
	}
	if err := os.Unsetenv(jobVariable); err != nil { // children are no jobs
		return err
	}
	set, err := fixtures.Open(j.Fixtures)
	if err != nil {
		return err
	}
	dir, err := os.Open(j.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	m := &meter{dir: dir, device: j.Device}
	stop, err := j.startProfile()
	if err != nil {
		return err
	}
	err = j.do(m, set)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	return json.NewEncoder(os.NewFile(3, "rows")).Encode(m.rows)
}

func (j *job) do(m *meter, set *fixtures.Set) error {
	switch j.Level {
	case "storage":
		return j.storage(m, set)
	case "driver":
		return j.driver(m, set)
	case "together":
		return j.together(m, set)
	case "put":
		return j.putOne(set)
	case "build":
		return j.build(m, set)
	case "deep":
		return j.deep(m)
	case "check":
		return j.checked(m, set)
	case "cache":
		return j.cache(m)
	case "memory":
		return j.memory(m, set, j.Many)
	case "scale":
		return j.scale(m, set, j.Many)
	case "limits":
		return j.limits(m, set)
	}
	return fmt.Errorf("no level %q", j.Level)
}

func (j *job) startProfile() (stop func() error, err error) {
	if j.Profile == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(filepath.Dir(j.Profile), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(j.Profile)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// images returns images of the fixtures by name, and reads their tars once, so that no run waits for the disk that they lie on.
func images(set *fixtures.Set, names ...string) (list []fixtures.Image, err error) {
	for _, name := range names {
		i, err := set.Image(name)
		if err != nil {
			return nil, err
		}
		for _, l := range i.Layers {
			if err := readFile(l.Tar); err != nil {
				return nil, err
			}
		}
		list = append(list, i)
	}
	return list, nil
}

func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return errors.Join(err, f.Close())
}
