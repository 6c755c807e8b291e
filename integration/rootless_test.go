package integration_test

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// rootless makes the home of an ordinary user on a filesystem of its own.
func rootless(t *testing.T, kind, driver string) (*programs.Rootless, *fixtures.Set) {
	t.Helper()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	u := programs.NewUser(t)
	dir := testfs.Mount(t, kind)
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // or the user does not get as far
		t.Fatal(err)
	}
	return programs.NewRootless(t, filepath.Join(dir, "u"), u, podman, driver), set
}

// load gives the user an image's layout and pulls it.
func load(t *testing.T, s *programs.Rootless, image fixtures.Image) {
	t.Helper()
	layout := filepath.Join(s.Home, image.Name)
	if err := os.CopyFS(layout, os.DirFS(image.Layout)); err != nil {
		t.Fatal(err)
	}
	if id := s.Podman("pull", "--quiet", "oci:"+image.Name); id != image.ID {
		t.Errorf("pull of %s gives the ID %s, want %s", image.Name, id, image.ID)
	}
	if err := os.RemoveAll(layout); err != nil {
		t.Fatal(err)
	}
}

const rootlessBuild = `FROM %s
RUN rm -rf /usr/share/doc /srv/app/copy1 && mkdir -p /usr/share/doc && echo x >/usr/share/doc/only
RUN ln /srv/app/copy2 /srv/app/hard && useradd -m worker && chown -R worker:worker /srv/app && chmod 4755 /srv/app/copy4
RUN mkfifo /opt/fifo; cp /srv/app/copy2 /srv/app/copy3; mv /srv/app/copy6 /srv/app/copy10
RUN rm /usr/share/doc/only && setcap cap_net_raw+ep /usr/bin/perl
`

// An ordinary user pulls, runs, builds, commits, saves, loads and removes.
func TestRootless(t *testing.T) {
	t.Parallel()
	s, set := rootless(t, "ext4", "ostree")
	image := set.Need(t, "full")
	s.Write("ostree-driver.conf", "pinned_store = \"none\"\nlinks = \"shared\"\n")
	load(t, s, image)
	info := s.Podman("info")
	for _, want := range []string{"graphDriverName: ostree", "user.overlay", "Pinned store: none", "Hardlink counts: shared", s.Root} {
		if !strings.Contains(info, want) {
			t.Errorf("podman info does not say %q:\n%s", want, info)
		}
	}
	s.Podman("run", "--name=churn", "--network=none", image.ID, "/bin/sh", "-ec", `
		[ ! -e /churn/again ] || exit 0
		mkdir /churn; cd /churn; for n in $(seq 300); do echo $n >f$n; done; ln f5 hard; ln -s hard soft; mkfifo fifo; chmod 4711 hard; chown 7:8 hard
		truncate -s 10M sparse; cp f1 f2; mv f3 f4; rm -rf /usr/share/man; mv /usr/share/perl5 /usr/share/perl6; touch again`)
	changes := s.Podman("diff", "churn")
	for _, want := range []string{"D /usr/share/perl5", "A /churn/hard", "A /churn/fifo", "A /churn/sparse"} {
		if !strings.Contains(changes+"\n", want+"\n") {
			t.Errorf("podman diff does not say %q", want)
		}
	}
	s.Podman("start", "--attach", "churn")
	s.Podman("rm", "churn")

	file := filepath.Join(s.Home, "Containerfile")
	writeFile(t, file, strings.ReplaceAll(rootlessBuild, "%s", image.ID))
	s.Podman("build", "--quiet", "--pull=never", "--layers", "-t", "localhost/built:1", "-f", file, s.Home+"/.config")
	out := s.Podman("run", "--name=c", "--network=none", "localhost/built:1", "/bin/sh", "-ec", `
		ls -A /usr/share/doc; test ! -e /srv/app/copy1; test /srv/app/hard -ef /srv/app/copy2; stat -c %a:%U /srv/app/copy4
		getcap /usr/bin/perl; test -p /opt/fifo; rm -rf /etc/apt; mkdir /etc/apt; echo new >/etc/apt/only; rm /usr/bin/chsh; mv /usr/share/perl5 /usr/share/perl6`)
	if want := "4755:worker\n/usr/bin/perl cap_net_raw=ep"; out != want {
		t.Errorf("the built image shows\n%s\nwant\n%s", out, want)
	}
	id := s.Podman("commit", "--quiet", "c", "localhost/committed:1")
	look := "ls /etc/apt; test ! -e /usr/bin/chsh; test ! -e /usr/share/perl5; test -d /usr/share/perl6"
	if out := s.Podman("run", "--rm", "--network=none", id, "/bin/sh", "-ec", look); out != "only" {
		t.Errorf("the committed image shows %q", out)
	}
	saved := filepath.Join(s.Home, "saved.tar")
	s.Podman("save", "--quiet", "--format=oci-archive", "-o", saved, id)
	s.Fsck(s.Root)
	s.Podman("rm", "--all")
	s.Podman("rmi", "--all", "--force")
	if objects, err := filepath.Glob(filepath.Join(s.Root, "ostree", "repo", "objects", "*", "*")); err != nil || len(objects) != 0 {
		t.Errorf("without images the repository still has %d objects, %v", len(objects), err)
	}
	s.Podman("load", "--quiet", "-i", saved)
	if out := s.Podman("run", "--rm", "--network=none", id, "/bin/sh", "-ec", look); out != "only" {
		t.Errorf("saved and loaded, the image shows %q", out)
	}
	// A namespace of the container's own: owners are copied, for idmapped mounts are root's, and status says so.
	if out := s.Podman("run", "--rm", "--network=none", "--userns=keep-id", id, "/bin/sh", "-ec", "stat -c %u:%g /bin/ls; cat /etc/apt/only"); out != "0:0\nnew" {
		t.Errorf("with keep-id: %q", out)
	}
	if info := s.Podman("info"); !strings.Contains(info, "Layers with copied owners: ") || strings.Contains(info, "Layers with copied owners: none") {
		t.Errorf("podman info does not say that owners were copied:\n%s", info)
	}
}

// What a rootless root sees is what overlay shows it, on each filesystem.
func TestRootlessAsOverlay(t *testing.T) {
	t.Parallel()
	for _, kind := range testfs.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			podman, set := programs.Find(t, "podman"), fixtures.Require(t)
			name := "busybox"
			if kind == "ext4" && !testing.Short() {
				name = "web"
			}
			if os.Getenv("SOAK") != "" {
				name = "full"
			}
			image := set.Need(t, name)
			u := programs.NewUser(t)
			dir := testfs.Mount(t, kind)
			if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
				t.Fatal(err)
			}
			const list = `cd /; for d in bin etc home lib lib64 media mnt opt root sbin srv usr var; do [ ! -e $d ] || echo $d; done |
				while read d; do find $d -xdev ! -path 'etc/host*' ! -path etc/mtab ! -path etc/resolv.conf ! -path etc -print0; done | sort -z |
				xargs -0 stat -c '%n %F %a %u:%g %s %Y %t:%T'`
			var seen []string
			for _, driver := range []string{"ostree", "overlay"} {
				s := programs.NewRootless(t, filepath.Join(dir, driver), u, podman, driver)
				s.Write("ostree-driver.conf", "pinned_store = \"none\"\n")
				load(t, s, image)
				seen = append(seen, s.Podman("run", "--rm", "--network=none", image.ID, "/bin/sh", "-ec", list))
			}
			same(t, "content of the root", withoutDirSizes(seen[0]), withoutDirSizes(seen[1]))
		})
	}
}

// dirSize is the size of a directory in a list of the form above.
var dirSize = regexp.MustCompile(`(?m)( directory \d+ \d+:\d+) \d+ `)

// withoutDirSizes is a list without the sizes of directories: on ext4 they follow from the order in which names came.
func withoutDirSizes(list string) string { return dirSize.ReplaceAllString(list, "$1 ") }

// A user's pinned store outlives the removal of all images.
func TestRootlessPinned(t *testing.T) {
	t.Parallel()
	s, set := rootless(t, "ext4", "ostree")
	image := set.Need(t, "busybox")
	archive := filepath.Join(s.Home, "image.tar")
	if err := image.WriteArchive(archive); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(archive, 0o644); err != nil {
		t.Fatal(err)
	}
	pinned := filepath.Join(s.Dir, "pinned")
	s.Podman("--root", pinned, "--storage-driver=ostree", "--storage-opt", "pinned_store=none", "load", "--quiet", "-i", archive)
	s.Write("ostree-driver.conf", "pinned_store = \""+pinned+"\"\n")
	if out := s.Podman("images", "--no-trunc", "--format", "{{.ID}} {{.ReadOnly}}"); out != "sha256:"+image.ID+" true" {
		t.Errorf("images: %q", out)
	}
	s.Podman("run", "--rm", "--network=none", image.ID, "/bin/busybox", "true")
	s.Podman("load", "--quiet", "-i", archive)
	s.Podman("rmi", "--all", "--force")
	s.Podman("run", "--rm", "--network=none", image.ID, "/bin/busybox", "true")
	s.Fsck(pinned)
}

// Nobody else gets at a user's or at root's store, whatever permissions are above it.
func TestB01StoresAreClosed(t *testing.T) {
	t.Parallel()
	s, set := rootless(t, "ext4", "ostree")
	image := set.Need(t, "busybox")
	load(t, s, image)
	file := filepath.Join(s.Home, "Containerfile")
	writeFile(t, file, "FROM "+image.ID+"\nRUN cp /bin/busybox /bin/suid && chmod 6755 /bin/suid\n")
	s.Podman("build", "--quiet", "--pull=never", "-t", "localhost/suid:1", "-f", file, s.Home+"/.config")
	s.Podman("create", "--name=c", "--network=none", "localhost/suid:1", "/bin/busybox", "true")
	for _, above := range []string{s.Dir, s.Root, s.Home} {
		if err := os.Chmod(above, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	paths := programs.Must(t, "find", filepath.Join(s.Root, "ostree"))
	if !strings.Contains(paths, "/bin/suid") {
		t.Fatal("there is no setuid program in the store")
	}
	walk := programs.Call{
		Path: "setpriv", Args: []string{"--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", `while IFS= read -r p; do [ -e "$p" ] && echo "$p"; done; true`},
		Input: []byte(paths),
	}.Exec(t)
	// The store's own directory is seen, or what is above it would be closed and this test of no use; nothing in it is.
	if reached := strings.TrimSpace(walk.Stdout); walk.Code != 0 || reached != filepath.Join(s.Root, "ostree") {
		t.Errorf("another user reaches %.1000s\n%v", reached, walk)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.Root, "ostree"), &st); err != nil || st.Mode&0o777 != 0o700 {
		t.Errorf("the home has the mode %o, %v", st.Mode, err)
	}
}

// What a user namespace cannot do is refused with a reason, at once, and leaves no store behind that some other setting would have.
func TestRootlessRefusals(t *testing.T) {
	t.Parallel()
	s, set := rootless(t, "ext4", "ostree")
	podman := programs.Find(t, "podman")
	for settings, words := range map[string][]string{
		"force_mask = \"shared\"\n": {"force_mask", "mount program"},
		"no_such = 1\n":             {"no_such", "pinned_store"},
	} {
		s.Write("ostree-driver.conf", settings)
		r := s.Call(podman.Path, "images").Exec(t)
		for _, w := range words {
			if r.Code == 0 || !strings.Contains(r.Stderr, w) {
				t.Errorf("with %q the message does not say %q:\n%v", settings, w, r)
			}
		}
	}
	// Owners out of the user's range: refused as by overlay, or made the user's with the option.
	s.Write("ostree-driver.conf", "pinned_store = \"none\"\n")
	image := set.Need(t, "busybox")
	load(t, s, image)
	layer := filepath.Join(s.Home, "far.tar")
	writeFar(t, layer)
	r := s.Call(podman.Path, "import", "--quiet", layer, "localhost/far:1").Exec(t)
	if r.Code == 0 || !strings.Contains(r.Stderr, "ids") && !strings.Contains(r.Stderr, "invalid argument") && !strings.Contains(r.Stderr, "4000000") {
		t.Errorf("an owner that the user has not:\n%v", r)
	}
	s.Write("ostree-driver.conf", "pinned_store = \"none\"\nignore_chown_errors = true\n")
	id := s.Podman("import", "--quiet", layer, "localhost/far:1")
	mounted := s.Must(s.Call(podman.Path, "unshare", "sh", "-ec", `m=$("$0" image mount "$1"); stat -c %u:%g "$m/far"; "$0" image umount "$1" >/dev/null`, podman.Path, id))
	if mounted != "0:0" {
		t.Errorf("with ignore_chown_errors the owner is %q", mounted)
	}
}

// writeFar writes a layer with a file whose owner is in nobody's range.
func writeFar(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "far", Typeflag: tar.TypeReg, Mode: 0o644, Uid: 4000000, Gid: 4000000}), w.Close(), f.Chmod(0o644), f.Close()); err != nil {
		t.Fatal(err)
	}
}
