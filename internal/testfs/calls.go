package testfs

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A watched call names its paths: pairs of arguments, a directory's descriptor and a name below it, or a descriptor and -1.
type watched struct {
	name  string
	paths [][2]int
}

// fiClone is the ioctl FICLONE.
const fiClone = 0x40049409

// What changes nothing that others can see, as utimensat on a file without a name, counts as well: it can fail.
var watchedCalls = map[int]watched{
	unix.SYS_MKDIRAT:         {"mkdir", [][2]int{{0, 1}}},
	unix.SYS_MKNODAT:         {"mknod", [][2]int{{0, 1}}},
	unix.SYS_SYMLINKAT:       {"symlink", [][2]int{{1, 2}}},
	unix.SYS_LINKAT:          {"link", [][2]int{{0, 1}, {2, 3}}},
	unix.SYS_RENAMEAT:        {"rename", [][2]int{{0, 1}, {2, 3}}},
	unix.SYS_RENAMEAT2:       {"rename", [][2]int{{0, 1}, {2, 3}}},
	unix.SYS_UNLINKAT:        {"remove", [][2]int{{0, 1}}},
	unix.SYS_OPENAT:          {"create", [][2]int{{0, 1}}},
	unix.SYS_FSYNC:           {"sync", [][2]int{{0, -1}}},
	unix.SYS_FDATASYNC:       {"sync", [][2]int{{0, -1}}},
	unix.SYS_SYNCFS:          {"syncfs", [][2]int{{0, -1}}},
	unix.SYS_SYNC_FILE_RANGE: {"write out", [][2]int{{0, -1}}},
	unix.SYS_FTRUNCATE:       {"truncate", [][2]int{{0, -1}}},
	unix.SYS_FALLOCATE:       {"allocate", [][2]int{{0, -1}}},
	unix.SYS_WRITE:           {"write", [][2]int{{0, -1}}},
	unix.SYS_PWRITE64:        {"write", [][2]int{{0, -1}}},
	unix.SYS_COPY_FILE_RANGE: {"copy", [][2]int{{2, -1}}},
	unix.SYS_IOCTL:           {"clone", [][2]int{{0, -1}}},
	unix.SYS_FSETXATTR:       {"setxattr", [][2]int{{0, -1}}},
	unix.SYS_LSETXATTR:       {"setxattr", [][2]int{{-1, 0}}},
	unix.SYS_FCHOWN:          {"chown", [][2]int{{0, -1}}},
	unix.SYS_FCHOWNAT:        {"chown", [][2]int{{0, 1}}},
	unix.SYS_FCHMOD:          {"chmod", [][2]int{{0, -1}}},
	unix.SYS_FCHMODAT:        {"chmod", [][2]int{{0, 1}}},
	unix.SYS_UTIMENSAT:       {"utimes", [][2]int{{0, 1}}},
}

// installFilter makes the kernel ask whoever has the listener about every watched call of all threads.
func installFilter() (listener int, err error) {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if arch == 0 {
		return -1, fmt.Errorf("no filter for %s", runtime.GOARCH)
	}
	ask := unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_USER_NOTIF}
	allow := unix.SockFilter{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW}
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	unless := func(test uint16, k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jf: skip, K: k}
	}
	// struct seccomp_data: nr, arch, ip, arguments of 8 bytes from 16 on, low half first.
	f := []unix.SockFilter{load(4), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: arch}, allow, load(0)}
	for nr := range watchedCalls {
		switch nr {
		case unix.SYS_OPENAT:
			f = append(f, unless(unix.BPF_JEQ, uint32(nr), 4), load(16+2*8), unless(unix.BPF_JSET, unix.O_CREAT|unix.O_TRUNC|unix.O_TMPFILE&^unix.O_DIRECTORY, 1), ask, allow)
		case unix.SYS_IOCTL:
			f = append(f, unless(unix.BPF_JEQ, uint32(nr), 4), load(16+1*8), unless(unix.BPF_JEQ, fiClone, 1), ask, allow)
		default:
			f = append(f, unless(unix.BPF_JEQ, uint32(nr), 1), ask)
		}
	}
	f = append(f, allow)
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// describe names a call and the paths that it is about, the one that changes last.
func describe(n *notice) (string, []string) {
	call := watchedCalls[int(n.nr)]
	var paths []string
	for _, at := range call.paths {
		name, dir := "", int32(unix.AT_FDCWD)
		if at[1] >= 0 {
			name = readString(int(n.pid), uintptr(n.arguments[at[1]]))
		}
		if at[0] >= 0 {
			dir = int32(n.arguments[at[0]])
		}
		paths = append(paths, absolute(n.pid, dir, name))
	}
	return call.name, paths
}

// absolute is the path of a name below an open directory of another process.
func absolute(pid uint32, dir int32, name string) string {
	if rest, ok := strings.CutPrefix(name, "/proc/self/fd/"); ok {
		number, below, _ := strings.Cut(rest, "/")
		var fd int32
		if _, err := fmt.Sscan(number, &fd); err == nil {
			return absolute(pid, fd, below)
		}
	}
	if strings.HasPrefix(name, "/") {
		return name
	}
	link := fmt.Sprintf("/proc/%d/fd/%d", pid, dir)
	if dir == unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/cwd", pid)
	}
	top, err := os.Readlink(link)
	if err != nil || name == "" {
		return top
	}
	return top + "/" + name
}

// readString reads a string of another process.
func readString(pid int, at uintptr) string {
	var all []byte
	for at != 0 && len(all) < unix.PathMax {
		b := make([]byte, 256-int(at%256)) // never past the end of a page
		local := []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}
		n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: at, Len: len(b)}}, 0)
		if err != nil || n <= 0 {
			break
		}
		if end := bytes.IndexByte(b[:n], 0); end >= 0 {
			return string(append(all, b[:end]...))
		}
		all = append(all, b[:n]...)
		at += uintptr(n)
	}
	return string(all)
}
