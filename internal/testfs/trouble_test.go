package testfs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// TestTrouble stops a process that makes directories one after the other, and lets some of them fail.
func TestTrouble(t *testing.T) {
	if dir := os.Getenv("TROUBLE_DIR"); dir != "" {
		makeThree(t, dir)
		return
	}
	names := []string{"mkdir 1", "mkdir 2", "mkdir 3"}
	for _, c := range []struct {
		at, times int
		errno     syscall.Errno
		want      []string // directories that are there then
		calls     int
		exit      int
	}{
		{want: []string{"1", "2", "3"}, calls: 3},
		{at: 1, calls: 1, exit: -1},
		{at: 3, want: []string{"1", "2"}, calls: 3, exit: -1},
		{at: 4, want: []string{"1", "2", "3"}, calls: 3},
		{at: 2, times: 1, errno: syscall.EDQUOT, want: []string{"1", "3"}, calls: 3, exit: 1},
		{at: 2, errno: syscall.EDQUOT, want: []string{"1"}, calls: 3, exit: 2},
	} {
		t.Run(fmt.Sprint(c.at, c.times, c.errno), func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestTrouble$")
			cmd.Env = append(os.Environ(), "TROUBLE_DIR="+dir)
			calls, err := testfs.Trouble{Below: dir, At: c.at, Times: c.times, Errno: c.errno}.Run(cmd)
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if cmd.ProcessState.ExitCode() == exitUnsupported {
				t.Skip("the kernel hands no calls to another process")
			}
			if got := cmd.ProcessState.ExitCode(); got != c.exit {
				t.Errorf("exit status %d, want %d: %v", got, c.exit, err)
			}
			if !slices.Equal(calls, names[:c.calls]) {
				t.Errorf("calls %q, want %q", calls, names[:c.calls])
			}
			got, err := filepath.Glob(dir + "/*")
			if err != nil {
				t.Fatal(err)
			}
			for i := range got {
				got[i] = filepath.Base(got[i])
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("there are %q, want %q", got, c.want)
			}
		})
	}
}

const exitUnsupported = 77

// makeThree exits with the number of directories that it could not make for want of quota.
func makeThree(t *testing.T, dir string) {
	if err := testfs.MeetTrouble(); errors.Is(err, testfs.ErrUnsupported) {
		os.Exit(exitUnsupported)
	} else if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for _, name := range []string{"1", "2", "3"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); errors.Is(err, syscall.EDQUOT) {
			failed++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := dir + "-elsewhere" // does not count
	if err := errors.Join(os.Mkdir(elsewhere, 0o700), os.Remove(elsewhere)); err != nil {
		t.Fatal(err)
	}
	os.Exit(failed)
}
