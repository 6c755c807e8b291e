package integration_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// policyHere is the policy of the package selinux-policy-default.
const policyHere = "/etc/selinux/default/contexts/files/file_contexts"

// withPolicy makes an image of a real Debian root and of the policy that this machine has.
func withPolicy(t *testing.T, dir string, base fixtures.Image) fixtures.Image {
	t.Helper()
	policy := filepath.Join(dir, "policy.tar")
	programs.Must(t, "tar", "-C", "/", "-cf", policy, "etc/selinux")
	spec := fixtures.Spec{Name: "labelled", Created: time.Unix(1e9, 0)}
	for _, l := range base.Layers {
		spec.Tars = append(spec.Tars, l.Tar)
	}
	spec.Tars = append(spec.Tars, policy)
	image, err := fixtures.WriteLayout(filepath.Join(dir, "labelled"), spec)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// pathTypes are the words that matchpathcon has for types of files.
var pathTypes = map[fs.FileMode]string{
	0: "file", fs.ModeDir: "dir", fs.ModeSymlink: "lnk_file", fs.ModeNamedPipe: "pipe", fs.ModeSocket: "sock_file",
	fs.ModeDevice: "blk_file", fs.ModeDevice | fs.ModeCharDevice: "chr_file",
}

// wantPolicyLabels compares the label of every path of a root with what libselinux says, and returns how many there are. Hardlinks for whose
// names it says several things are those that the checkout told of, no more and no fewer.
func wantPolicyLabels(t *testing.T, root string, conflicts []string) int {
	t.Helper()
	told := map[string]bool{}
	for _, c := range conflicts {
		path, _, _ := strings.Cut(c, " would be ")
		told[path] = true
	}
	byType := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.Contains(path, "\n") {
			return err
		}
		kind := pathTypes[d.Type()]
		byType[kind] = append(byType[kind], "/"+strings.TrimPrefix(strings.TrimPrefix(path, root), "/"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all, wrong := 0, 0
	for kind, paths := range byType {
		for begin := 0; begin < len(paths); begin += 5000 {
			part := paths[begin:min(begin+5000, len(paths))]
			out := programs.Must(t, "matchpathcon", append([]string{"-m", kind, "-n", "-f", policyHere}, part...)...)
			want := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
			if len(want) != len(part) {
				t.Fatalf("matchpathcon says %d lines of %d paths", len(want), len(part))
			}
			for i, path := range part {
				b := make([]byte, 512)
				n, err := unix.Lgetxattr(filepath.Join(root, path), "security.selinux", b)
				got := strings.TrimSuffix(string(b[:max(n, 0)]), "\x00")
				if err == unix.ENODATA {
					got = "<<none>>"
				}
				if all++; got != want[i] && told[path] {
					delete(told, path)
				} else if got != want[i] {
					if wrong++; wrong <= 20 {
						t.Errorf("%s: %q, libselinux says %q (%v)", path, got, want[i], err)
					}
				}
			}
		}
	}
	t.Logf("%d paths, %d differences, %d further names of hardlinks with other labels", all, wrong, len(conflicts))
	if len(told) > 0 {
		t.Errorf("these were to differ: %v", told)
	}
	return all
}

// labelsAnswer is what storagectl checkout says.
type labelsAnswer struct {
	Labels struct {
		Files     int64    `json:"files"`
		New       int64    `json:"new"`
		NewBytes  int64    `json:"new_bytes"`
		Conflicts []string `json:"conflicts"`
	} `json:"labels"`
}

// A Debian root is checked out with the labels of its own policy: every path has what libselinux gives it. A second checkout costs no data,
// containers of the image see no difference, and both stand beside each other.
func TestCheckoutLabels(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	for _, program := range []string{policyHere, "/usr/sbin/matchpathcon"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("no oracle (packages selinux-policy-default and selinux-utils): %v", err)
		}
	}
	ctl, err := storagectl()
	if err != nil {
		t.Fatal(err)
	}
	images := map[string]string{"ext4": "web", "xfs": "busybox", "btrfs": "busybox"}
	if os.Getenv("SOAK") != "" {
		images = map[string]string{"ext4": "full", "xfs": "web", "btrfs": "web"} // 55,000 paths
	}
	for kind, name := range images {
		t.Run(kind, func(t *testing.T) { checkoutLabels(t, kind, podman, ctl, set.Need(t, name)) })
	}
}

func checkoutLabels(t *testing.T, kind string, podman programs.Program, ctl string, base fixtures.Image) {
	least := base.Layers[0].Entries * 9 / 10
	dir := testfs.Mount(t, kind)
	image := withPolicy(t, t.TempDir(), base)
	s := programs.NewStore(t, filepath.Join(dir, "s"), "ostree")
	s.FsckOnly = true
	s.Options = []string{"pinned_store=none"}
	pull(t, s, podman, image)
	storagectl := programs.Program{Name: "storagectl", Path: ctl}
	checkout := func(to string) (v labelsAnswer) {
		c := s.Call(storagectl)
		c.Args = append([]string{"--root", s.Root, "--runroot", s.RunRoot, "--format=json"}, append(c.Args, "checkout", image.ID, to, "--selinux-policy=auto")...)
		r := c.Exec(t)
		if err := json.Unmarshal([]byte(r.Stdout), &v); r.Code != 0 || err != nil {
			t.Fatalf("%v\n%v", err, r)
		}
		return v
	}
	const look = `cd /; for d in bin etc lib sbin usr var; do [ ! -e $d ] || find $d -xdev ! -path 'etc/host*' ! -path etc/mtab ! -path etc/resolv.conf ! -path etc -print0; done |
		sort -z | xargs -0 stat -c '%n %F %a %u:%g %h %s %Y' | md5sum`
	before := s.Container(podman, image.ID, look)
	root, second := filepath.Join(dir, "root"), filepath.Join(dir, "second")
	v := checkout(root)
	if n := wantPolicyLabels(t, root, v.Labels.Conflicts); int64(n) < least || v.Labels.New == 0 || len(v.Labels.Conflicts) > 0 != (base.Name == "busybox") {
		t.Errorf("%d paths, %+v", n, v)
	}
	free := freeAfterSync(t, dir)
	if v := checkout(second); v.Labels.New != 0 {
		t.Errorf("the second checkout makes %d lanes", v.Labels.New)
	}
	took := free - freeAfterSync(t, dir)
	t.Logf("new lanes %d of %d bytes; the second root takes %d bytes", v.Labels.New, v.Labels.NewBytes, took)
	if took > max(v.Labels.NewBytes/4, 1<<20) {
		t.Errorf("the second root takes %d bytes", took)
	}
	wantPolicyLabels(t, second, v.Labels.Conflicts)
	if after := s.Container(podman, image.ID, look); after != before {
		t.Error("containers see a difference")
	}
	if out, err := exec.Command("rm", "-rf", root, second).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
