package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.podman.io/storage/pkg/unshare"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/pins"
	"github.com/ostree-storage/ostree-storage/plugin"
)

func init() {
	moreCommands = append(moreCommands, (*app).pinCommand, (*app).unpinCommand)
}

// crioFlags say what is to become of CRI-O's list of pinned images.
type crioFlags struct {
	dir    string
	crio   bool
	reload bool
}

// crioDir is where CRI-O's configuration is. Tests have another: they are to leave the host's alone.
var crioDir = "/etc/crio"

func (f *crioFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.dir, "crio-config", crioDir, "CRI-O's configuration; its list of pinned images is kept if the directory exists")
	c.Flags().BoolVar(&f.crio, "crio", false, "keep CRI-O's list even if CRI-O is not configured yet")
	c.Flags().BoolVar(&f.reload, "reload", false, "make CRI-O reload its configuration")
}

// pinOptions are where the pinned store and the main one are.
func (a *app) pinOptions() (pins.Options, error) {
	o, err := a.options()
	if err != nil {
		return pins.Options{}, err
	}
	path, err := plugin.PinnedStore(o.GraphRoot, o.RunRoot, o.GraphDriverOptions)
	if err != nil {
		return pins.Options{}, err
	}
	shared, err := plugin.SharedTimes(o.GraphDriverOptions)
	if err != nil {
		return pins.Options{}, err
	}
	return pins.Options{Path: path, Main: o, SharedTimes: shared, Wait: a.lockTimeout, Message: a.tell}, nil
}

// withPins runs f on the pinned store.
func (a *app) withPins(create bool, f func(*pins.Store) error) error {
	o, err := a.pinOptions()
	if err != nil {
		return err
	}
	return a.openPins(o, create, f)
}

func (a *app) openPins(o pins.Options, create bool, f func(*pins.Store) error) error {
	s, err := pins.Open(o, create)
	if err != nil {
		return pinError(err)
	}
	return pinError(errors.Join(f(s), s.Close()))
}

// viewPins runs f, which changes nothing, on the pinned store, even if it can only be read.
func (a *app) viewPins(f func(*pins.Store) error) error {
	o, err := a.pinOptions()
	if err != nil {
		return err
	}
	s, err := pins.Open(o, false)
	if errors.Is(err, pins.ErrReadOnly) || errors.Is(err, pins.ErrBusy) {
		s, err = pins.View(o)
	}
	if err != nil {
		return pinError(err)
	}
	return pinError(errors.Join(f(s), s.Close()))
}

// pinError gives an error of package pins its exit code and the next command.
func pinError(err error) error {
	var unreadable *pins.UnreadableError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unreadable):
		return advise(refused(err), "mount or repair these graphroots, or use --force if they are gone for good")
	case errors.Is(err, pins.ErrDamaged):
		return advise(codeError{exitDamage, err}, "storagectl check, then storagectl repair")
	case errors.Is(err, pins.ErrBusy):
		return advise(codeError{exitBusy, err}, "storagectl --lock-timeout 10m and the same command, which then waits that long")
	case errors.Is(err, unix.EROFS):
		return advise(refused(err), "mount -o remount,rw the filesystem of the pinned store; storagectl pin ls and pin verify work as it is")
	case errors.Is(err, pins.ErrReadOnly):
		return advise(refused(err), "run it as the user that the pinned store belongs to, or name another: --storage-opt pinned_store=PATH")
	case errors.Is(err, pins.ErrRefused):
		return advise(refused(err), "storagectl pin ls")
	case errors.Is(err, pins.ErrNoStore):
		return advise(err, "storagectl pin IMAGE")
	case errors.Is(err, pins.ErrUnknown):
		return advise(err, "storagectl images, storagectl pin ls")
	case exitCode(err) == exitNoSpace:
		return advise(err, "storagectl gc, storagectl unpin --expired, or df of the pinned store's filesystem")
	}
	return advise(err, "storagectl pin doctor")
}

type pinFlags struct {
	request pins.Request
	expires string
	booted  bool
	sysroot string
	quick   bool
	crio    crioFlags
}

func (a *app) pinCommand() *cobra.Command {
	var f pinFlags
	c := &cobra.Command{
		Use:   "pin IMAGE",
		Short: "Keep an image where nothing that prunes, wipes or resets reaches it",
		Long: `pin makes an image a member of the pinned store: a store of its own outside graphroot, which every program with the driver sees
read-only. It costs directory entries and no data: files are hardlinks to the store's own. All of them are read once and compared with
their checksums, so that what is pinned is whole; --quick leaves that out. The image survives podman rmi -f, prune and reset, crio wipe, kubelet, and the
loss of graphroot; only storagectl unpin removes it.`,
		Example: `  storagectl pin quay.io/example/os:43 --name os --reason "the host's OS"
  storagectl pin --booted
  storagectl pin --replace os quay.io/example/os:44`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if f.booted == (len(args) == 1) {
				return advise(errors.New("name one IMAGE, or give --booted"), "storagectl pin --help")
			}
			if len(args) == 1 {
				f.request.Image = args[0]
			}
			return a.pin(c.Context(), &f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.request.Name, "name", "", "name of the pin (default: the image's first name)")
	flags.StringVar(&f.request.Reason, "reason", "", "why, for people")
	flags.StringVar(&f.expires, "expires", "", "when the pin may go: a time as 2027-01-31 or 2027-01-31T12:00:00Z, or a duration as 720h")
	flags.BoolVar(&f.quick, "quick", false, "do not read files to compare them with their checksums: storagectl pin verify does it later")
	flags.StringVar(&f.request.Replace, "replace", "", "the pin whose image is replaced: it keeps its name, and the old image is unpinned")
	flags.BoolVar(&f.booted, "booted", false, "pin the image that this host is booted from")
	flags.StringVar(&f.sysroot, "sysroot", "/", "root of the host that --booted asks")
	c.MarkFlagsMutuallyExclusive("name", "replace")
	f.crio.add(c)
	c.AddCommand(a.pinLsCommand(), a.pinVerifyCommand(), a.pinDoctorCommand())
	return a.again(c)
}

// parseExpiry reads a time or a duration from now.
func parseExpiry(text string) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		t := time.Now().Add(d).UTC().Truncate(time.Second)
		return &t, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			t = t.UTC()
			return &t, nil
		}
	}
	return nil, advise(fmt.Errorf("--expires %s: neither a time nor a duration", text), "storagectl pin --help")
}

type pinAnswer struct {
	*pins.Pinned
	Store  string       `json:"store"`
	Booted *pins.Booted `json:"booted,omitempty"`
	CRIO   *crioAnswer  `json:"crio,omitempty"`
}

func (a *app) pin(ctx context.Context, f *pinFlags) error {
	var err error
	if f.request.Expires, err = parseExpiry(f.expires); err != nil {
		return err
	}
	answer := pinAnswer{}
	o, err := a.pinOptions()
	if err != nil {
		return err
	}
	if gone, err := a.nothing(); gone || err != nil {
		return errors.Join(err, a.noStore())
	}
	o.Unread = f.quick
	meter := a.newMeter("pin")
	defer meter.stop()
	o.Progress = meter.set
	return a.openPins(o, true, func(s *pins.Store) error {
		answer.Store = s.Path()
		if f.booted {
			b, err := pins.FindBooted(ctx, f.sysroot)
			if err != nil {
				return advise(fmt.Errorf("find the booted image: %w", err), "storagectl pin IMAGE")
			}
			answer.Booted = &b
			if f.request.Image, err = s.FindBootedImage(b); err != nil {
				return advise(err, "podman pull %s", b.Image)
			}
			if f.request.Reason == "" {
				f.request.Reason = "booted"
			}
		}
		if answer.Pinned, err = s.Pin(ctx, f.request); err != nil {
			return err
		}
		meter.stop()
		if answer.CRIO, err = a.keepCRIO(s, &f.crio); err != nil {
			return err
		}
		return a.answer(answer, "", a.pinRows(&answer))
	})
}

// pinRows says for people what was done.
func (a *app) pinRows(p *pinAnswer) []string {
	rows := []string{fmt.Sprintf("pinned %s as %s (%d layers, by %s) in %s", short(p.Pin.Image), p.Pin.Name, p.Layers, p.Sharing, p.Store)}
	if p.Replaced != nil {
		rows = append(rows, removedRows(p.Replaced)...)
	}
	return append(rows, p.CRIO.rows()...)
}

// A crioAnswer is what became of CRI-O's list.
type crioAnswer struct {
	File     string `json:"file"`
	Changed  bool   `json:"changed"`
	Reloaded bool   `json:"reloaded"`
}

func (c *crioAnswer) rows() []string {
	switch {
	case c == nil || !c.Changed && !c.Reloaded:
		return nil
	case c.Reloaded:
		return []string{"CRI-O has reloaded " + c.File}
	}
	return []string{"changed " + c.File + ": it takes effect when CRI-O reloads (systemctl reload crio, or --reload)"}
}

// keepCRIO makes CRI-O's list of pinned images agree with the pins, where CRI-O is configured or it was asked for.
func (a *app) keepCRIO(s *pins.Store, f *crioFlags) (*crioAnswer, error) {
	c := &pins.CRIO{Dir: f.dir}
	// CRI-O is root's: an ordinary user's pins are none of its images.
	if !f.crio && (!c.Configured() || unshare.IsRootless() && f.dir == crioDir) {
		return nil, nil
	}
	names, err := s.Names()
	if err != nil {
		return nil, err
	}
	out := &crioAnswer{File: c.Path()}
	if out.Changed, err = c.Keep(names); err != nil {
		return out, fmt.Errorf("keep CRI-O's list of pinned images: %w", err)
	}
	if !f.reload {
		return out, nil
	}
	if text, err := exec.Command("systemctl", "reload", "crio").CombinedOutput(); err != nil {
		return out, advise(fmt.Errorf("reload CRI-O: %w: %s", err, strings.TrimSpace(string(text))), "systemctl status crio")
	}
	out.Reloaded = true
	return out, nil
}
