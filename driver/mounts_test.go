package driver_test

import (
	"errors"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
)

// A kernel is what is mounted.
type kernel map[string]bool

func (k kernel) table() *driver.MountTable {
	return driver.NewMountTable(
		func(target string) (bool, error) { return k[target], nil },
		func(target string) error { delete(k, target); return nil },
	)
}

func (k kernel) mount() error {
	if k["t"] {
		return errors.New("mounted twice")
	}
	k["t"] = true
	return nil
}

func TestMountTable(t *testing.T) {
	steps := map[string]string{ // g: Get, p: Put, m: another process mounts, u: another process unmounts
		"gp":     "unmounted",
		"ggp":    "mounted",
		"ggpp":   "unmounted",
		"p":      "unmounted",
		"mp":     "unmounted", // of an earlier process of ours
		"mg":     "mounted",
		"mgp":    "mounted", // somebody else's
		"mgpp":   "unmounted",
		"gup":    "unmounted",
		"gug":    "mounted",
		"ggugp":  "unmounted", // the first two went with the unmount
		"gpgp":   "unmounted",
		"gpmgp":  "mounted",
		"ggpgpp": "unmounted",
	}
	for ops, want := range steps {
		t.Run(ops, func(t *testing.T) {
			k := make(kernel)
			table := k.table()
			for _, op := range ops {
				var err error
				switch op {
				case 'g':
					err = table.Acquire("t", k.mount)
				case 'p':
					_, err = table.Release("t")
				case 'm':
					k["t"] = true
				case 'u':
					delete(k, "t")
				}
				if err != nil {
					t.Fatalf("%c: %v", op, err)
				}
			}
			if got := map[bool]string{true: "mounted", false: "unmounted"}[k["t"]]; got != want {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

func TestMountTableFailedMount(t *testing.T) {
	k := make(kernel)
	table := k.table()
	broken := errors.New("broken")
	if err := table.Acquire("t", func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if n := len(table.List()); n != 0 {
		t.Errorf("%d users after a mount that failed", n)
	}
	if err := table.Acquire("t", k.mount); err != nil || !k["t"] {
		t.Errorf("the next mount: %v", err)
	}
}
