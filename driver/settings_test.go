package driver_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/driver"
)

func TestParseSettings(t *testing.T) {
	exact := driver.Settings{Sync: driver.SyncFilesystem}
	with := func(change func(s *driver.Settings)) driver.Settings {
		s := exact
		change(&s)
		return s
	}
	tests := []struct {
		name    string
		options []string
		want    driver.Settings
	}{
		{"nothing", nil, exact},
		{"three spellings", []string{"ostree.mtime=shared", ".links=shared", "sync=none"}, driver.Settings{SharedTimes: true, SharedLinks: true}},
		{"later wins", []string{"mtime=shared", "mtime=exact"}, exact},
		{"other drivers", []string{"overlay.mount_program=/x", "overlay2.size=1g", "vfs.x=y", "btrfs.min_space=1", "zfs.fsname=t", "dm.fs=ext4"}, exact},
		{"label", []string{"store_label=system_u:object_r:container_ro_file_t:s0"}, with(func(s *driver.Settings) {
			s.Label, s.LabelSet = "system_u:object_r:container_ro_file_t:s0", true
		})},
		{"no label", []string{"store_label=none"}, with(func(s *driver.Settings) { s.LabelSet = true })},
		{"stores add up", []string{"imagestore=/a,/b/", ".imagestore=/c", "ostree.additionalimagestore=/a"}, with(func(s *driver.Settings) {
			s.ImageStores = []string{"/a", "/b", "/c"}
		})},
		{"empty image store", []string{"imagestore="}, exact},
		{"pinned", []string{"pinned_store=/p/q/"}, with(func(s *driver.Settings) { s.PinnedStore = "/p/q" })},
		{"no pinned", []string{"pinned_store=none"}, with(func(s *driver.Settings) { s.PinnedStore = "none" })},
		{"share", []string{"share_with=/a:/b/repo"}, with(func(s *driver.Settings) { s.ShareWith = []string{"/a", "/b/repo"} })},
		{"size", []string{"size=1.5g", "inodes=1000"}, with(func(s *driver.Settings) { s.Size, s.Inodes = 3<<29, 1000 })},
		{"size in bytes", []string{"size=4096"}, with(func(s *driver.Settings) { s.Size = 4096 })},
		{"size with a unit's long form", []string{"size=10 MiB"}, with(func(s *driver.Settings) { s.Size = 10 << 20 })},
		{"mount options", []string{"mountopt=nodev,metacopy=on"}, with(func(s *driver.Settings) {
			s.MountOptions = []string{"nodev"}
			s.Ignored = []string{"mountopt metacopy=on (a layer's changes would not be complete)"}
		})},
		{"forwarded to all", []string{"mount_program=/usr/bin/fuse-overlayfs", "skip_mount_home=true", "ignore_chown_errors=true", "force_mask="}, with(func(s *driver.Settings) {
			s.IgnoreChownErrors = true
			s.Ignored = []string{"mount_program=/usr/bin/fuse-overlayfs (the kernel's overlayfs is used)"}
		})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := driver.ParseSettings(tt.options)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestParseSettingsRefuses(t *testing.T) {
	tests := []struct{ option, says string }{
		{"ostree.colour=red", `no "colour", it has additionalimagestore, `},
		{"colour=red", "share_with, size, skip_mount_home, store_label, sync"},
		{"foo.mtime=exact", `no "foo.mtime"`},
		{"mtime", "not key=value"},
		{"mtime=some", `the value "some" is not exact or shared`},
		{"mtime=", "not exact or shared"},
		{"links=exact", "exact-etc or shared"},
		{"sync=maybe", "filesystem or none"},
		{"pinned_store=here", `an absolute path or "none"`},
		{"pinned_store=", `an absolute path or "none"`},
		{"share_with=/a:b", `"b" is not an absolute path`},
		{"imagestore=/a,b", `"b" is not an absolute path`},
		{"store_label=red", "an SELinux context"},
		{"size=big", "a size such as"},
		{"size=-1", "a size such as"},
		{"size=99999999999999999999p", "a size such as"},
		{"inodes=1k", "a number"},
		{"ignore_chown_errors=perhaps", "true or false"},
		{"skip_mount_home=perhaps", "true or false"},
		{"force_mask=0700", "needs a mount program"},
		{"mountopt=nodev,index=on", `mount option "index=on" is the driver's own`},
	}
	for _, tt := range tests {
		t.Run(tt.option, func(t *testing.T) {
			_, err := driver.ParseSettings([]string{tt.option})
			if !errors.Is(err, driver.ErrOption) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), tt.option) {
				t.Errorf("error %q: it should be an ErrOption that says %q and names %q", err, tt.says, tt.option)
			}
		})
	}
}

func FuzzParseSettings(f *testing.F) {
	for _, s := range []string{"size=1.5g", "ostree.mtime=shared", ".=", "=", "a.b.c=d", "size=1e308p", "mountopt=,,"} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, option string) {
		_, _ = driver.ParseSettings([]string{option})
	})
}

func TestConfigFile(t *testing.T) {
	tests := []struct {
		name, content string
		options       []string
		want          func(s *driver.Settings)
		err           string
	}{
		{name: "all kinds", content: "mtime = \"shared\"\nsize = 4096\nignore_chown_errors = true\nshare_with = [\"/a\", \"/b\"]\nimagestore = [\"/c\", \"/d\"]\n",
			want: func(s *driver.Settings) {
				s.SharedTimes, s.Size, s.IgnoreChownErrors = true, 4096, true
				s.ShareWith, s.ImageStores = []string{"/a", "/b"}, []string{"/c", "/d"}
			}},
		{name: "options win", content: "mtime = \"shared\"\n", options: []string{".mtime=exact"}, want: func(*driver.Settings) {}},
		{name: "unknown key", content: "colour = \"red\"\n", err: `no "colour"`},
		{name: "wrong value", content: "mtime = \"x\"\n", err: "exact or shared"},
		{name: "wrong type", content: "[mtime]\nx = 1\n", err: "a value is a string"},
		{name: "list of numbers", content: "share_with = [1]\n", err: "strings alone"},
		{name: "no TOML", content: "mtime: shared\n", err: "ostree-driver.conf"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ostree-driver.conf")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(driver.ConfigVariable, path)
			got, err := driver.LoadSettings(driver.Options{Settings: tt.options})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v: it should say %q and name %s", err, tt.err, path)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := driver.Settings{Sync: driver.SyncFilesystem}
			tt.want(&want)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestConfigFilePlaces(t *testing.T) {
	t.Run("named and missing", func(t *testing.T) {
		t.Setenv(driver.ConfigVariable, filepath.Join(t.TempDir(), "missing"))
		if _, err := driver.LoadSettings(driver.Options{}); err == nil {
			t.Error("no error for a file that is named and does not exist")
		}
	})
	t.Run("none", func(t *testing.T) {
		t.Setenv(driver.ConfigVariable, "none")
		if _, err := driver.LoadSettings(driver.Options{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("rootless", func(t *testing.T) {
		home := t.TempDir()
		unset(t, driver.ConfigVariable)
		t.Setenv("XDG_CONFIG_HOME", "")
		t.Setenv("HOME", home)
		dir := filepath.Join(home, ".config", "containers")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ostree-driver.conf"), []byte("links = \"shared\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := driver.LoadSettings(driver.Options{Rootless: true})
		if err != nil || !s.SharedLinks {
			t.Errorf("%+v, %v: the user's own file was not read", s, err)
		}
	})
}

// unset removes an environment variable until the test ends.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // restores the old value
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}

func TestPinnedStorePlace(t *testing.T) {
	top := t.TempDir()
	mkdir := func(p string) string {
		t.Helper()
		p = filepath.Join(top, p)
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	tests := []struct{ name, setting, graphroot, runroot, want string }{
		{"beside", "", mkdir("a/storage"), mkdir("run"), filepath.Join(top, "a/pinned")},
		{"named", "/p", mkdir("a/storage"), mkdir("run"), "/p"},
		{"none", "none", mkdir("a/storage"), mkdir("run"), ""},
		{"parent in runroot", "", mkdir("r/x/storage"), mkdir("r"), filepath.Join(top, "pinned")},
		{"graphroot is a mount", "", "/proc", mkdir("run"), "/var/lib/containers/pinned"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := driver.PinnedStore(tt.setting, tt.graphroot, tt.runroot); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
