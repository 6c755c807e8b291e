package layers_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/layers"
)

// TestB10Killed kills a process at one point or another, and opens the home again.
func TestB10Killed(t *testing.T) {
	if step := os.Getenv("LAYERS_STEP"); step != "" {
		dieAt(t, step, os.Getenv("LAYERS_HOME"))
		return
	}
	needRoot(t)
	for _, step := range []string{"reading", "staged", "moved aside", "created", "committed"} {
		t.Run(step, func(t *testing.T) {
			home := tmpfs(t) + "/home"
			c := openCatalog(t, home, layers.Options{})
			apply(t, c, "base", "", makeTar(t, file("usr/x", "1"), file("usr/y", strings.Repeat("y", 100_000))))
			before := storeFiles(t, home)
			if step == "moved aside" {
				apply(t, c, "more", "base", makeTar(t, file("usr/z", "2")))
			}
			cmd := exec.Command(os.Args[0], "-test.run=^TestB10Killed$")
			cmd.Env = append(os.Environ(), "LAYERS_STEP="+step, "LAYERS_HOME="+home)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Success() || exit.ExitCode() != -1 {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}
			again := openCatalog(t, home, layers.Options{})
			if step == "created" || step == "committed" {
				removeAll(t, again, "more") // as containers/storage does with what it knows to be incomplete
			}
			for _, p := range storeFiles(t, home) {
				if !slices.Contains(before, p) && !strings.HasSuffix(p, "/unsynced") && !strings.HasSuffix(p, "/turn") {
					t.Errorf("%s was left", p)
				}
			}
			for _, p := range before {
				if _, err := os.Lstat(p); err != nil {
					t.Errorf("%s is gone", p)
				}
			}
			apply(t, again, "more", "base", makeTar(t, file("usr/z", "2")))
		})
	}
}

// dieAt is the process that is killed.
func dieAt(t *testing.T, step, home string) {
	c, err := layers.OpenCatalog(home, layers.Options{})
	must(t, err)
	die := func() { must(t, unix.Kill(os.Getpid(), unix.SIGKILL)) }
	chain, err := layers.Catalogs{c}.Chain("base")
	must(t, err)
	data := makeTar(t, file("usr/z", "2"), file("usr/w", strings.Repeat("w", 100_000)))
	if step == "moved aside" {
		_, err := c.Remove("more")
		must(t, err)
		die()
	}
	var tar io.Reader = bytes.NewReader(data)
	if step == "reading" {
		tar = io.MultiReader(bytes.NewReader(data[:50_000]), readerFunc(func([]byte) (int, error) { die(); select {} }))
	}
	s, err := c.Stage(context.Background(), tar, layers.StageOptions{Chain: chain})
	must(t, err)
	if step == "staged" {
		die()
	}
	_, err = c.Create("more", "base", layers.CreateOptions{})
	must(t, err)
	if step == "created" {
		die()
	}
	must(t, c.Commit("more", s))
	die()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
