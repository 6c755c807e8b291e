package testfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trouble is what happens to a process at one of the calls that change something below a directory: make, link, rename
// and remove names, write, clone and sync files, set their metadata. The kernel hands these calls to the parent, which counts
// them, so that a process can be stopped at call n, for all n, whoever's code makes it.
type Trouble struct {
	Below string        // a directory: calls elsewhere do not count
	At    int           // the first call that meets trouble, from 1 on; 0: none does
	Times int           // how many calls meet it; 0: all from then on
	Errno syscall.Errno // what they fail with; 0: the process is killed before the call

	Except func(call string) bool // calls that do not count, nor fail
}

// troubleEnv holds the number of the socket that the process sends its listener to.
const troubleEnv = "TESTFS_TROUBLE"

// Run runs a process that begins with MeetTrouble, and returns the calls that it made until it ended or was killed. The error
// is that of the process.
func (t Trouble) Run(cmd *exec.Cmd) ([]string, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	// A thread that a signal interrupts makes its call a second time.
	cmd.Env = append(cmd.Env, fmt.Sprint(troubleEnv, "=", 3+len(cmd.ExtraFiles)), "GODEBUG=asyncpreemptoff=1")
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	w := &watch{Trouble: t, process: cmd.Process}
	if w.listener, err = receiveFile(ours); err == nil {
		err = w.run()
		w.listener.Close()
	}
	if err != nil {
		err = errors.Join(err, cmd.Process.Kill())
	}
	return w.calls, errors.Join(cmd.Wait(), err)
}

// MeetTrouble lets the parent, if it runs us with Trouble, stop this process from now on. The error matches ErrUnsupported
// if the kernel cannot do that.
func MeetTrouble() error {
	var socket int
	if _, err := fmt.Sscan(os.Getenv(troubleEnv), &socket); err != nil {
		return nil
	}
	defer unix.Close(socket)
	listener, err := installFilter()
	if err != nil {
		return fmt.Errorf("watch the calls of this process: %w: %w", err, ErrUnsupported)
	}
	// Only the parent has it from now on: when that dies, our calls fail.
	defer unix.Close(listener)
	return unix.Sendmsg(socket, []byte{0}, unix.UnixRights(listener), nil, 0)
}

// receiveFile receives a descriptor.
func receiveFile(from *os.File) (*os.File, error) {
	b, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(int(from.Fd()), b, oob, unix.MSG_CMSG_CLOEXEC)
	if err == nil && n == 0 {
		err = errors.New("the process did not call MeetTrouble")
	}
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "listener"), nil
}

// The kernel's struct seccomp_notif and seccomp_notif_resp.
type (
	notice struct {
		id        uint64
		pid       uint32
		_         uint32
		nr        int32
		_         uint32
		_         uint64
		arguments [6]uint64
	}
	answer struct {
		id    uint64
		_     int64
		errno int32
		flags uint32
	}
)

// A watch is one process while it is watched.
type watch struct {
	Trouble
	process  *os.Process
	listener *os.File
	calls    []string
}

// run answers the process until it has ended.
func (w *watch) run() error {
	fd := w.listener.Fd()
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return err
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return nil // nobody is left
		}
		var n notice
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			if errno == unix.ENOENT || errno == unix.EINTR { // the caller was killed
				continue
			}
			return errno
		}
		a, err := w.judge(&n)
		if err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&a))); errno != 0 && errno != unix.ENOENT {
			return errno
		}
	}
}

// judge decides about a call.
func (w *watch) judge(n *notice) (answer, error) {
	goOn := answer{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	call, paths := describe(n)
	if !strings.HasPrefix(paths[len(paths)-1], w.Below+"/") && paths[len(paths)-1] != w.Below {
		return goOn, nil
	}
	for i := range paths {
		paths[i] = strings.TrimPrefix(paths[i], w.Below+"/")
	}
	call += " " + strings.Join(paths, " -> ")
	if w.Except != nil && w.Except(call) {
		return goOn, nil
	}
	w.calls = append(w.calls, call)
	at := len(w.calls)
	if w.At == 0 || at < w.At || w.Times > 0 && at >= w.At+w.Times {
		return goOn, nil
	}
	if w.Errno != 0 {
		return answer{id: n.id, errno: -int32(w.Errno)}, nil
	}
	if err := w.process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return goOn, err
	}
	return answer{id: n.id, errno: -int32(unix.EIO)}, nil // nobody is there to read it
}
