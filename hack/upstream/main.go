// Command upstream runs the tests that containers/storage has for its command, in bats, with the driver and with the overlay driver,
// and compares: what passes with overlay must pass with the driver, or stand in the list of exceptions with the reason.
//
// The tests come from the sources that hack/build-containers-storage fetched, and nothing in them is changed but this: where a test
// has a list of drivers that it runs for, and overlay is on it, the driver is as well. It needs root and bats, and takes some minutes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// programs are the commands, one of each upstream.
var programs = []string{"containers-storage", "containers-storage-legacy"}

func main() {
	kind := flag.String("fs", "ext4", "the filesystem to run on: ext4, xfs or btrfs")
	filter := flag.String("run", "", "run only the tests whose names match this expression")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kind, *filter); err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kind, filter string) error {
	module, err := fixtures.ModuleRoot()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("bats"); err != nil {
		return fmt.Errorf("%w: hack/deps installs it", err)
	}
	var errs []error
	for _, program := range programs {
		s := suite{
			program: filepath.Join(module, "build", "bin", program),
			source:  filepath.Join(module, ".cache", "programs", program, "source", "tests"),
			kind:    kind, filter: filter,
		}
		if err := s.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", program, err))
		}
	}
	return errors.Join(errs...)
}

// A suite is the tests of one upstream, and the command that they are for.
type suite struct {
	program string
	source  string // where the tests are
	kind    string // of filesystem
	filter  string
}

// run runs the tests with both drivers at the same time, prints how they compare, and says what is not as it has to be.
func (s *suite) run(ctx context.Context) error {
	version, err := os.ReadFile(s.program + ".version")
	if err != nil {
		return fmt.Errorf("%w: hack/build-containers-storage makes it", err)
	}
	fmt.Print("== ", string(version))
	tests, err := os.MkdirTemp("", "ostree-upstream-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tests)
	if err := adopt(s.source, tests); err != nil {
		return err
	}
	var both sync.WaitGroup
	var results [2]map[string]result
	var errs [2]error
	for n, driver := range []string{"overlay", "ostree"} {
		both.Go(func() { results[n], errs[n] = s.bats(ctx, tests, driver) })
	}
	both.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	lines, wrong := compare(results[0], results[1], exceptions, s.filter != "")
	fmt.Println(strings.Join(lines, "\n"))
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}

// bats runs the tests with one driver on a filesystem of their own.
func (s *suite) bats(ctx context.Context, tests, driver string) (_ map[string]result, err error) {
	fs, err := testfs.New(s.kind, testfs.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	arguments := []string{"--tap"}
	if s.filter != "" {
		arguments = append(arguments, "--filter", s.filter)
	}
	c := exec.CommandContext(ctx, "bats", append(arguments, ".")...)
	c.Dir = tests
	c.Env = append(os.Environ(), "STORAGE_DRIVER="+driver, "STORAGE_BINARY="+s.program, "STORAGE_OPTION=", "STORAGE_TRANSIENT=0",
		"CONTAINERS_STORAGE_CONF=/dev/null", "BATS_TMPDIR="+fs.Dir, "TMPDIR="+fs.Dir, "LC_ALL=C")
	out, err := c.Output()
	results := parse(string(out))
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || len(results) == 0) {
		return nil, fmt.Errorf("bats with %s: %w", driver, err)
	}
	return results, ctx.Err()
}
