package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strconv"

	"go.podman.io/storage/pkg/idtools"
	"go.podman.io/storage/pkg/unshare"
	"golang.org/x/sys/unix"
)

// containers/storage enters a user namespace by C code that runs before Go does, which a static binary without cgo has not: it would start
// itself for ever. Here the program starts itself in a new namespace, waits there for its owners, and executes itself once more, since it
// is root there from then on.

// usernsStep says, in the environment, how far a process of ours has come with that.
const (
	usernsStep  = "_STORAGECTL_USERNS"
	usernsWait  = "wait" // for the owners, which come through descriptor 3
	usernsReady = "ready"
)

// continueInUserNamespace is the first thing that the program does. Where it was started to wait for its namespace, it does not return.
func continueInUserNamespace() error {
	if os.Getenv(usernsStep) != usernsWait {
		return nil
	}
	ready := os.NewFile(3, "owners")
	b, err := io.ReadAll(ready)
	if err != nil || len(b) != 1 {
		return errors.Join(err, errors.New("the user namespace got no owners"))
	}
	if err := errors.Join(ready.Close(), os.Setenv(usernsStep, usernsReady)); err != nil {
		return err
	}
	return unix.Exec("/proc/self/exe", os.Args, os.Environ())
}

// enterUserNamespace makes the user root of a namespace of his own: it runs the program there and exits with its exit code. It returns
// only where there is nothing to do, or with an error.
func enterUserNamespace() error {
	if os.Geteuid() == 0 {
		return nil
	}
	if os.Getenv(usernsStep) != "" {
		return errors.New("this is not root of the user namespace")
	}
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("find out who this is: %w", err)
	}
	maps, err := idtools.NewIDMappings(me.Username, me.Username)
	if err != nil || len(maps.UIDs()) == 0 || len(maps.GIDs()) == 0 {
		err = errors.Join(fmt.Errorf("user %s has no range of owners in /etc/subuid and /etc/subgid", me.Username), err)
		return advise(err, "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", me.Username)
	}
	code, err := runInUserNamespace(owners(me.Uid, maps.UIDs()), owners(me.Gid, maps.GIDs()))
	if err != nil {
		return advise(fmt.Errorf("make a user namespace: %w", err), "podman unshare storagectl, which says what is missing")
	}
	os.Exit(code)
	return nil
}

// owners are the arguments of newuidmap after the process: one's own id is 0 inside, the ranges follow.
func owners(self string, ranges []idtools.IDMap) []string {
	args := []string{"0", self, "1"}
	inside := 1
	for _, r := range ranges {
		args = append(args, strconv.Itoa(inside), strconv.Itoa(r.HostID), strconv.Itoa(r.Size))
		inside += r.Size
	}
	return args
}

func runInUserNamespace(uids, gids []string) (code int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr, c.ExtraFiles = os.Stdin, os.Stdout, os.Stderr, []*os.File{r}
	c.Env = append(os.Environ(), usernsStep+"="+usernsWait, unshare.UsernsEnvName+"=done",
		fmt.Sprintf("_CONTAINERS_ROOTLESS_UID=%d", os.Getuid()), fmt.Sprintf("_CONTAINERS_ROOTLESS_GID=%d", os.Getgid()))
	c.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err := errors.Join(c.Start(), r.Close()); err != nil {
		return 0, errors.Join(err, w.Close())
	}
	go func() {
		for s := range signals {
			_ = c.Process.Signal(s)
		}
	}()
	for program, list := range map[string][]string{"newuidmap": uids, "newgidmap": gids} {
		out, failed := exec.Command(program, append([]string{strconv.Itoa(c.Process.Pid)}, list...)...).CombinedOutput()
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w: %s", program, failed, out))
		}
	}
	if err != nil {
		return 0, errors.Join(err, c.Process.Kill(), w.Close(), ignoreExit(c.Wait()))
	}
	if _, err = w.Write([]byte{1}); err == nil {
		err = w.Close()
	}
	err = errors.Join(err, ignoreExit(c.Wait()))
	return c.ProcessState.ExitCode(), err
}

// ignoreExit leaves out that a process failed, which its exit code says.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}
