package driver_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bigTar has n files of size bytes each, all different, and the size of them all.
func bigTar(t testing.TB, n, size int) ([]byte, int64) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, w.WriteHeader(&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o777}))
	for i := range n {
		must(t, w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size)}))
		_, err := w.Write([]byte(strings.Repeat(fmt.Sprintf("%08d", i), size/8)))
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes(), int64(n * size)
}

// asUser calls f on a thread that is another user without capabilities.
func asUser(t testing.TB, id int, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		done <- func() error {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
				return errno
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(id), uintptr(id), uintptr(id)); errno != 0 {
				return errno
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(id), uintptr(id), uintptr(id)); errno != 0 {
				return errno
			}
			return f()
		}()
	}()
	if err := <-done; err != nil {
		t.Errorf("as user %d: %v", id, err)
	}
}
