package selinux_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/selinux"
	"golang.org/x/sys/unix"
)

func TestValidate(t *testing.T) {
	for _, good := range []string{
		"system_u:object_r:container_ro_file_t:s0",
		"system_u:object_r:container_file_t:s0:c1,c2",
		"system_u:object_r:container_file_t:s0-s15:c0.c1023,c5",
		"system_u:object_r:usr_t",
		"staff-u:object_r:a.b_t:SystemLow-SystemHigh",
		"u:r:" + strings.Repeat("t", 4091),
	} {
		if err := selinux.Validate(good); err != nil {
			t.Error(err)
		}
	}
	for bad, want := range map[string]string{
		"":                                  "not user:role:type",
		"container_file_t":                  "not user:role:type",
		"system_u:object_r":                 "not user:role:type",
		":object_r:t:s0":                    "no user",
		"system_u::t:s0":                    "no role",
		"system_u:object_r::s0":             "no type",
		"system_u:object_r:t:":              "no level",
		"system_u:object_r:t:s0\n":          `"\n" in the level`,
		"system_u:object_r:t\x00:s0":        `"\x00" in the type`,
		`system_u:object_r:t:s0",upperdir=`: `"\"" in the level`,
		"system_u:object_r:a b:s0":          `" " in the type`,
		"system_u:object,r:t:s0":            `"," in the role`,
		"<<none>>":                          "not user:role:type",
		"u:r:" + strings.Repeat("t", 4092):  "4096 bytes",
	} {
		if err := selinux.Validate(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", bad, err, want)
		}
	}
}

const (
	readOnly = "system_u:object_r:container_ro_file_t:s0"
	file     = "system_u:object_r:container_file_t:s0:c1022,c1023"
	usr      = "system_u:object_r:usr_t:s0"
)

func TestMountLabel(t *testing.T) {
	for _, tt := range []struct {
		on          bool
		label, want string
		fails       bool
	}{
		{false, file, "", false},
		{false, "nonsense", "", false},
		{true, "", "", false},
		{true, file, file, false},
		{true, `u:r:t:s0",x="`, "", true},
	} {
		got, err := selinux.Host{On: tt.on}.MountLabel(tt.label)
		if got != tt.want || (err != nil) != tt.fails {
			t.Errorf("SELinux on: %v: %q gives %q, %v; want %q", tt.on, tt.label, got, err, tt.want)
		}
	}
}

func TestStoreLabel(t *testing.T) {
	knows := func(labels ...string) func(string) error {
		return func(label string) error {
			for _, l := range labels {
				if l == label {
					return nil
				}
			}
			return unix.EINVAL
		}
	}
	for name, tt := range map[string]struct {
		host selinux.Host
		want string
	}{
		"off":                  {selinux.Host{ReadOnly: readOnly, Known: knows(readOnly)}, ""},
		"read-only type":       {selinux.Host{On: true, ReadOnly: readOnly, File: file, Known: knows(readOnly)}, readOnly},
		"file type":            {selinux.Host{On: true, File: file, Known: knows("system_u:object_r:container_file_t:s0")}, "system_u:object_r:container_file_t:s0"},
		"not in the policy":    {selinux.Host{On: true, ReadOnly: readOnly, File: file, Usr: usr, Known: knows()}, usr},
		"no container policy":  {selinux.Host{On: true, Usr: usr, Known: knows()}, usr},
		"without levels":       {selinux.Host{On: true, File: "u:r:t", Known: knows("u:r:t")}, "u:r:t"},
		"no label of anything": {selinux.Host{On: true, Known: knows(), Err: errors.New("none")}, ""},
	} {
		if got := tt.host.StoreLabel(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// This host's own answers fit together.
func TestThisHost(t *testing.T) {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	got := selinux.StoreLabel()
	if err != nil {
		if mount, err := selinux.MountLabel(file); got != "" || mount != "" || err != nil {
			t.Errorf("SELinux is off: store label %q, mount label %q, %v", got, mount, err)
		}
		t.Skip("SELinux is off here: only the labels of a host without it were tried")
	}
	if err := selinux.Validate(got); err != nil {
		t.Error(err)
	}
}
