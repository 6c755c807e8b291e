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
	Device        string
	Fixtures      string
	Profile       string // file for a CPU profile, or ""
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
	if err := warm(set); err != nil {
		return err
	}
	stop, err := j.startProfile()
	if err != nil {
		return err
	}
	switch j.Level {
	case "storage":
		err = j.storage(m, set)
	case "driver":
		err = j.driver(m, set)
	case "limits":
		err = j.limits(m, set)
	default:
		err = fmt.Errorf("no level %q", j.Level)
	}
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	return json.NewEncoder(os.NewFile(3, "rows")).Encode(m.rows)
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

// used are the images that the scenarios take: one alone, one that shares most
// with it, and one pair of an image and its update.
func used(set *fixtures.Set) (list []fixtures.Image, err error) {
	for _, name := range []string{"full", "python", "update-old", "update-new"} {
		i, err := set.Image(name)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, nil
}

// warm reads every tar once, so that no run waits for the disk that the
// fixtures lie on.
func warm(set *fixtures.Set) error {
	list, err := used(set)
	if err != nil {
		return err
	}
	for _, i := range list {
		for _, l := range i.Layers {
			f, err := os.Open(l.Tar)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
		}
	}
	return nil
}
