package differential_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	graphdriver "go.podman.io/storage/drivers"
	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/differential"
	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// debianOnce keeps two tests from making the root at once.
var debianOnce sync.Mutex

// debian returns the tar of a small Debian root with the programs that look at
// inodes and link counts. It is made once and kept in .cache.
func debian(t *testing.T) []byte {
	t.Helper()
	debianOnce.Lock()
	defer debianOnce.Unlock()
	module, err := fixtures.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(module, ".cache", "differential", "debian-v1.tar")
	if b, err := os.ReadFile(file); err == nil {
		return b
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Skip("no Debian root: mmdebstrap is not installed")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	fresh := fmt.Sprintf("%s.%d.tar", file, os.Getpid())
	defer os.Remove(fresh)
	out, err := exec.Command("mmdebstrap", "--quiet", "--variant=minbase", "--include=cron,logrotate,rsync,attr",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=force-unsafe-io", "bookworm", fresh).CombinedOutput()
	if err != nil {
		t.Skipf("no Debian root: mmdebstrap: %v: %s", err, out)
	}
	if err := os.Rename(fresh, file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// jobs is the layer on top of the Debian root: equal files that are no
// hardlinks, a real hardlink, a cron job, and a log.
func jobs(t *testing.T) []byte {
	t.Helper()
	at := time.Unix(1700000000, 0)
	var l differential.Layer
	file := func(name, body string) {
		l = append(l, differential.Entry{Name: name, Type: tar.TypeReg, Mode: 0o644, Body: []byte(body), MTime: at})
	}
	equal := strings.Repeat("equal content\n", 100)
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "sub/a"} {
		file("srv/"+name, equal)
	}
	file("srv/old1", "old\n")
	l = append(l, differential.Entry{Name: "srv/link", Type: tar.TypeLink, Link: "srv/h", Mode: 0o644, MTime: at})
	l = append(l, differential.Entry{Name: "srv/s1", Type: tar.TypeSymlink, Link: "a", Mode: 0o777, MTime: at})
	l = append(l, differential.Entry{Name: "srv/s2", Type: tar.TypeSymlink, Link: "a", Mode: 0o777, MTime: at})
	file("etc/cron.d/job", "@reboot root echo ran >/srv/cron.out\n")
	file("var/log/app.log", "one line\n")
	file("var/log/app2.log", "one line\n")
	file("etc/logrotate.d/app", "/var/log/app*.log {\n\trotate 2\n\tsize 1\n\tnocompress\n\tcreate\n}\n")
	b, err := l.Tar()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inode is what real programs do with equal files; each line's outcome must be
// what it is on overlay.
const inode = `exec 2>&1
cd /srv || exit 1
try() { "$@"; echo "= $? $*"; }
try cp a b
try cp -f a c
try cp -p a d
try cp -u a d
try cp -l a a.link
try mv e f
try install -m 600 a g
try ln -f a b
try cp --remove-destination c b
try cp s1 s2
try cp -P s1 s3
try cp h link
try mv h link
try cp /srv/a /srv/sub/a
try tar cf /srv/x.tar --mtime=@0 --sort=name --exclude=x.tar .
try tar tvf x.tar
try rsync -aH --exclude=x.tar --exclude=copy /srv/ /srv/copy/
try find copy -type f -links +1 -printf "%P\n"
try find . -samefile h -printf "%P\n"
echo more >>h; try wc h link
cmp a c; try diff -r /srv/copy/sub /srv/sub
du -s --apparent-size sub | cut -f1
`

// churn is what Debian's own tools do to a system: packages made on the spot come,
// are replaced by others with some files equal, and go. What holds the time of day
// goes with them.
const churn = `exec 2>&1
export DEBIAN_FRONTEND=noninteractive
mkdir -p /root/build && cd /root/build || exit 1
make() { # version, content of the files that change
	rm -rf p; mkdir -p p/DEBIAN p/usr/share/churn/sub p/etc p/var/lib/churn
	printf 'Package: churn\nVersion: %s\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' $1 >p/DEBIAN/control
	echo /etc/churn.conf >p/DEBIAN/conffiles
	for n in $(seq 40); do echo "same $n" >p/usr/share/churn/same$n; echo "$2 $n" >p/usr/share/churn/sub/file$n; done
	echo conf >p/etc/churn.conf; echo state >p/var/lib/churn/state
	ln p/usr/share/churn/same1 p/usr/share/churn/hard; ln -s same1 p/usr/share/churn/soft
	find p -exec touch -h -d @1600000000 {} +
	dpkg-deb --root-owner-group -b p churn_$1.deb >/dev/null
}
make 1 old; make 2 new
dpkg --force-unsafe-io -i churn_1.deb | grep -v "^(Reading"; echo "= $?"
echo changed >/etc/churn.conf
apt-get -qq -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold -o Dpkg::Options::=--force-unsafe-io install /root/build/churn_2.deb >/dev/null; echo "= $? apt"
dpkg --verify churn; echo "= $? verify"
find /usr/share/churn -type f -links +1 | sort; cat /etc/churn.conf /usr/share/churn/sub/file7
dpkg --force-depends --purge attr >/dev/null; echo "= $? purge"
[ ! -e /usr/bin/attr ] || echo attr is left
dpkg-divert --rename --divert /usr/bin/rsync.real --add /usr/bin/rsync; echo "= $? divert"
dpkg --audit; dpkg -l | md5sum; apt-mark showmanual | sort | md5sum
rm -rf /root/build /var/log/dpkg.log /var/log/apt/* /var/log/alternatives.log /var/cache/apt/*.bin /var/lib/apt/extended_states
`

func TestProgramsInARoot(t *testing.T) {
	root := debian(t)
	each(t, func(t *testing.T, dir string) {
		p := opened(t, dir)
		prepare(t, p, root)
		if slices.Contains(kinds(), filepath.Base(dir)) {
			packages(t, p)
		}
		var outs []string
		for _, s := range []*differential.Side{p.Oracle, p.Ours} {
			outs = append(outs, inContainer(t, s, "inode", func(root string) string { return chroot(t, root, inode) }))
			if out := inContainer(t, s, "cron", func(root string) string { return cron(t, root) }); out != "ran\n" {
				t.Errorf("the job in cron.d did not run on %s: %q", s.Name, out)
			}
			out := inContainer(t, s, "logrotate", func(root string) string {
				return chroot(t, root, "logrotate -v /etc/logrotate.d/app 2>&1; cd /var/log; ls app*; cat app.log.1 app2.log.1")
			})
			if !strings.Contains(out, "\napp.log\napp.log.1\napp2.log\napp2.log.1\none line\none line\n") {
				t.Errorf("logrotate did not rotate on %s:\n%s", s.Name, out)
			}
		}
		if outs[0] != outs[1] {
			t.Errorf("programs saw differences: %s", firstLine(outs[0], outs[1]))
		}
		if !strings.Contains(outs[0], "= 0 cp a b\n") {
			t.Errorf("the script did not run:\n%s", outs[0])
		}
	})
}

// packages runs the churn in a container of each driver, and compares what it said,
// the roots after it, and the changes.
func packages(t *testing.T, p *differential.Pair) {
	t.Helper()
	began := time.Now().Add(-time.Second)
	var outs []string
	var trees []*differential.Tree
	var changes [][]string
	for _, s := range []*differential.Side{p.Oracle, p.Ours} {
		if err := s.Driver.CreateReadWrite("packages", "jobs", &graphdriver.CreateOpts{}); err != nil {
			t.Fatal(err)
		}
		err := s.Mounted("packages", func(root string) error {
			outs = append(outs, chroot(t, root, churn))
			tree, err := differential.Walk(root)
			trees = append(trees, tree)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.Changes("packages", "jobs")
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(list)
		changes = append(changes, list)
		if err := s.Driver.Remove("packages"); err != nil {
			t.Error(err)
		}
	}
	if outs[0] != outs[1] {
		t.Errorf("dpkg and apt saw differences: %s", firstLine(outs[0], outs[1]))
	}
	if strings.Count(outs[0], "= 0") != 5 || !strings.Contains(outs[0], "changed\nnew 7\n") {
		t.Errorf("the packages did not come and go:\n%s", outs[0])
	}
	if !slices.Equal(changes[0], changes[1]) || len(changes[0]) < 100 {
		t.Errorf("changes after dpkg and apt: %d lines, with ours %d: %s", len(changes[0]), len(changes[1]),
			firstLine(strings.Join(changes[0], "\n"), strings.Join(changes[1], "\n")))
	}
	// Directories that the two layers do not list, and what the run itself wrote.
	rules := differential.Rules{Implied: map[string]bool{".": true, "srv": true, "srv/sub": true, "etc": true, "etc/cron.d": true, "etc/logrotate.d": true, "var": true, "var/log": true}, Started: began}
	if diffs := differential.Compare(trees[0], trees[1], rules); len(diffs) > 0 {
		t.Errorf("after dpkg and apt:\n%s", format(diffs))
	}
}

// firstLine shows the first line in which two outputs differ.
func firstLine(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d: on overlay %q, on ours %q", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines on overlay, %d on ours", len(w), len(g))
}

// TestB05ProgramsNoticeLinks shows that the test above can fail: with links=shared
// the job's file has more than one link, and cron refuses it.
func TestB05ProgramsNoticeLinks(t *testing.T) {
	if *ours == "overlay" {
		t.Skip("overlay has no such option")
	}
	t.Parallel()
	p := open(t, testfs.Mount(t, "ext4"), "links=shared")
	prepare(t, p, debian(t))
	if out := inContainer(t, p.Ours, "cron", func(root string) string { return cron(t, root) }); out != "" {
		t.Errorf("with links=shared the job in cron.d ran (%q): the test of cron would not notice a linked file", out)
	}
}

func prepare(t *testing.T, p *differential.Pair, root []byte) {
	t.Helper()
	for _, s := range []*differential.Side{p.Oracle, p.Ours} {
		if _, err := s.Apply("base", "", root, true); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply("jobs", "base", jobs(t), true); err != nil {
			t.Fatal(err)
		}
	}
}

// inContainer mounts a container's layer of its own and runs f in it.
func inContainer(t *testing.T, s *differential.Side, id string, f func(root string) string) (out string) {
	t.Helper()
	if err := s.Driver.CreateReadWrite(id, "jobs", &graphdriver.CreateOpts{}); err != nil {
		t.Fatal(err)
	}
	err := s.Mounted(id, func(root string) error {
		out = f(root)
		return nil
	})
	if err = errors.Join(err, s.Driver.Remove(id)); err != nil {
		t.Fatal(err)
	}
	return out
}

func chrooted(ctx context.Context, root string, arg ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, arg[0], arg[1:]...)
	c.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	c.Dir = "/"
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC"}
	return c
}

func chroot(t *testing.T, root, script string) string {
	t.Helper()
	var out bytes.Buffer
	c := chrooted(t.Context(), root, "/bin/sh", "-c", script)
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "exit status %d\n", exit.ExitCode())
	}
	return out.String()
}

// cron runs Debian's cron until the job has run, or for some seconds.
func cron(t *testing.T, root string) string {
	t.Helper()
	// The job's shell needs a null device; the images of mmdebstrap have none.
	_ = unix.Mknod(filepath.Join(root, "dev/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	var messages bytes.Buffer
	c := chrooted(ctx, root, "/usr/sbin/cron", "-f", "-L", "15")
	c.Stderr = &messages
	c.SysProcAttr.Setpgid = true
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = time.Second
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var out []byte
	for ctx.Err() == nil && len(out) == 0 {
		time.Sleep(50 * time.Millisecond)
		out, _ = os.ReadFile(filepath.Join(root, "srv/cron.out"))
	}
	cancel()
	_ = c.Wait() // killed
	if messages.Len() > 0 {
		t.Logf("cron: %s", messages.String())
	}
	return string(out)
}
