package integration_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// Images come in as archives and from layouts, and have overlay's IDs.
func TestPodmanLoadAndPull(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	full, tiny, hardlinks := set.Need(t, "full"), set.Need(t, "tiny"), set.Need(t, "busybox")
	archive := filepath.Join(ours.Dir, "full.tar")
	if err := full.WriteArchive(archive); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range []*programs.Store{ours, overlay} {
		s.Run(podman, "load", "--quiet", "-i", archive)
		pull(t, s, podman, tiny)
		pull(t, s, podman, hardlinks)
		ids = append(ids, sorted(s.Run(podman, "images", "--all", "--no-trunc", "--format", "{{.Repository}} {{.ID}} {{.Size}}")))
		ids = append(ids, s.Run(podman, "image", "inspect", full.ID, "--format", "{{.RootFS.Layers}} {{.Size}}"))
	}
	same(t, "list of images", ids[0], ids[2])
	same(t, "inspected image", ids[1], ids[3])
	if !strings.Contains(ids[0], full.ID) {
		t.Errorf("the images are\n%s\nwithout %s", ids[0], full.ID)
	}
	// Every file of the biggest image reads the same; podman itself makes a few in etc.
	const list = `cd / && find bin etc home lib lib64 media mnt opt root sbin srv usr var -xdev -mindepth 1 ! -path 'etc/host*' ! -path etc/mtab \
			! -path etc/resolv.conf -print0 | sort -z >/tmp/names
		xargs -0 stat -c '%n %F %a %u:%g %s %Y %t:%T' </tmp/names
		find bin etc lib opt root sbin srv usr var -xdev -type f ! -path 'etc/host*' ! -path etc/resolv.conf -print0 | sort -z | xargs -0 sha256sum`
	same(t, "content of the root", withoutDirSizes(ours.Container(podman, full.ID, list)), withoutDirSizes(overlay.Container(podman, full.ID, list)))
}

// A container reads, writes and removes; what it changed is what overlay says, and no object of the image changes.
func TestPodmanRun(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	image := set.Need(t, "web")
	var changes, contents []string
	for _, s := range []*programs.Store{ours, overlay} {
		pull(t, s, podman, image)
		s.Run(podman, "run", "--name=churn", "--network=none", image.ID, "/bin/sh", "-ec", churnScript)
		changes = append(changes, sorted(s.Run(podman, "diff", "churn")))
		export := filepath.Join(s.Dir, "export.tar")
		s.Run(podman, "export", "-o", export, "churn")
		contents = append(contents, tarListing(t, export))
		// A second container does not see the first one's changes.
		if out := s.Container(podman, image.ID, "cat /etc/debian_version; test -e /usr/sbin/nginx; test ! -e /churn"); out == "changed" {
			t.Errorf("%s: the image changed", s.Driver)
		}
		// Restarted, the container still has them.
		s.Run(podman, "start", "--attach", "churn")
		s.Run(podman, "rm", "churn")
	}
	same(t, "podman diff", changes[0], changes[1])
	same(t, "podman export", contents[0], contents[1])
}

// What apt and dpkg do to a system, and shells: without a network, with a package made on the spot.
const churnScript = `
[ ! -e /churn/again ] || exit 0
mkdir /churn; cd /churn
echo changed >/etc/debian_version
dpkg --purge nginx nginx-common >/dev/null 2>&1 || dpkg --force-all --purge nginx >/dev/null 2>&1
mkdir -p pkg/DEBIAN pkg/usr/share/churn
printf 'Package: churn\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n' >pkg/DEBIAN/control
for n in $(seq 500); do echo "file $n" >pkg/usr/share/churn/f$n; done
dpkg-deb -b pkg churn.deb >/dev/null; dpkg -i churn.deb >/dev/null; rm -r pkg churn.deb; : >/var/log/dpkg.log
sed -i 's/^Version: 1$/Version: 1/' /var/lib/dpkg/status
rm -rf /usr/share/man /usr/share/doc/curl
mv /usr/share/perl5 /usr/share/perl6 2>/dev/null || true
cp -a /usr/share/zoneinfo zones 2>/dev/null || true
cp /usr/share/churn/f1 /usr/share/churn/f2 && mv /usr/share/churn/f3 /usr/share/churn/f4
ln /usr/share/churn/f5 hard; ln -s hard soft; mkfifo fifo; chmod 4711 hard; chown 7:8 hard
truncate -s 10M sparse; : >/usr/share/churn/f6
touch -d @1700000000.5 /usr/share/churn/*
touch again
`

func TestPodmanBuild(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	image := set.Need(t, "python")
	context := filepath.Join(ours.Dir, "context")
	writeContext(t, context)
	var ids, histories []string
	for _, s := range []*programs.Store{ours, overlay} {
		pull(t, s, podman, image)
		// With all times set to one second the layers, and so the image's ID, must be the same on every driver.
		s.Run(podman, "build", "--quiet", "--pull=never", "--layers", "--timestamp=1790000000",
			"--isolation=chroot", "--cap-add=CAP_MKNOD", "-t", "localhost/built:1", context)
		ids = append(ids, s.Run(podman, "image", "inspect", "localhost/built:1", "--format", "{{.ID}} {{.RootFS.Layers}}"))
		histories = append(histories, s.Run(podman, "history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "localhost/built:1"))
		checkBuilt(t, s, podman)
	}
	same(t, "built image", ids[0], ids[1])
	same(t, "history", histories[0], histories[1])
	if n := strings.Count(ids[0], "sha256:"); n < 20 {
		t.Errorf("the built image has %d layers, want at least 20: %s", n, ids[0])
	}
}

// writeContext makes a build of 20 steps that add, copy, change and delete.
func writeContext(t *testing.T, dir string) {
	t.Helper()
	for n := range 50 {
		writeFile(t, filepath.Join(dir, "app", fmt.Sprintf("module%d.py", n)), fmt.Sprintf("x = %d\n", n%5))
	}
	writeFile(t, filepath.Join(dir, "settings", "a.conf"), "a\n")
	writeFile(t, filepath.Join(dir, "Containerfile"), `FROM localhost/python:latest
ENV APP=/opt/app
COPY app /opt/app
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/app
RUN cp /opt/app/module0.py /opt/app/module5.py && mv /opt/app/module1.py /opt/app/module6.py
RUN rm -rf /usr/share/doc
RUN rm /opt/app/module2.py && mkdir /opt/app/module2.py && touch /opt/app/module2.py/inside
COPY settings /etc/app
RUN useradd -m worker
RUN chown -R worker:worker /opt/app
RUN chmod -R g+w /opt/app && chmod 4755 /opt/app/module3.py
RUN rm -rf /opt/app/__pycache__ && mkdir /opt/app/__pycache__ && echo new >/opt/app/__pycache__/only
RUN ln /opt/app/module7.py /opt/app/hardlink && ln -s module7.py /opt/app/symlink
RUN mkfifo /opt/fifo && mknod /opt/null c 1 3
RUN dpkg --purge --force-depends e2fsprogs >/dev/null 2>&1 && : >/var/log/dpkg.log
RUN for n in $(seq 300); do echo $((n % 7)) >/var/lib/f$n; done
RUN rm /var/lib/f1*
COPY app/module0.py /opt/app/module9.py
RUN python3 -c 'import os; os.setxattr("/opt/app/module9.py", "user.built", b"yes")'
RUN rm -rf /etc/app
RUN cat /opt/app/module*.py 2>/dev/null >/opt/app/all; true
RUN n=$(find /usr /etc -xdev -type f | wc -l); echo $n >/count
WORKDIR /opt/app
CMD ["/bin/cat", "/opt/app/module6.py"]
`)
}

// checkBuilt looks at the built image from inside.
func checkBuilt(t *testing.T, s *programs.Store, p programs.Program) {
	t.Helper()
	out := s.Container(p, "localhost/built:1", `
		test ! -e /usr/share/doc; test ! -e /etc/app; test -d /opt/app/module2.py; test -f /opt/app/module2.py/inside
		ls -A /opt/app/__pycache__; test /opt/app/hardlink -ef /opt/app/module7.py; stat -c %a:%U /opt/app/module3.py; readlink /opt/app/symlink
		cat /opt/app/module5.py; test ! -e /opt/app/module1.py; test -p /opt/fifo; test -c /opt/null; ls /var/lib/f* | wc -l`)
	if want := "only\n4755:worker\nmodule7.py\nx = 0\n189"; out != want {
		t.Errorf("%s: the built image shows\n%s\nwant\n%s", s.Driver, out, want)
	}
}

// commit, diff, save and a load of what was saved.
func TestPodmanCommitAndSave(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	image := set.Need(t, "web")
	var committed []string
	for _, s := range []*programs.Store{ours, overlay} {
		pull(t, s, podman, image)
		s.Run(podman, "run", "--name=c", "--network=none", image.ID, "/bin/sh", "-ec",
			`rm -rf /usr/share/nginx /etc/nginx/nginx.conf; echo new >/srv/new; cp -a /etc/passwd /srv/x; mknod /srv/null c 1 3
			touch -d @1790000000 /srv/new /srv/null /srv /etc/nginx /usr/share`)
		id := s.Run(podman, "commit", "--quiet", "c", "localhost/committed:1")
		committed = append(committed, sorted(s.Run(podman, "diff", id)))
		s.Container(podman, id, "test ! -e /usr/share/nginx && test ! -e /etc/nginx/nginx.conf && grep -q new /srv/new && test -c /srv/null")

		archive := filepath.Join(s.Dir, "saved.tar")
		s.Run(podman, "save", "--quiet", "--format=oci-archive", "-o", archive, image.ID)
		saved := readArchive(t, archive)
		var want []string
		for _, l := range image.Layers {
			want = append(want, l.DiffID)
		}
		same(t, "DiffIDs of the saved image", strings.Join(saved, "\n"), strings.Join(want, "\n"))
	}
	same(t, "diff of the committed image", committed[0], committed[1])
	// Gone and loaded again from its own archive, the image is the same.
	ours.Run(podman, "rm", "c")
	ours.Run(podman, "rmi", "--all", "--force")
	ours.Run(podman, "load", "--quiet", "-i", filepath.Join(ours.Dir, "saved.tar"))
	if out := ours.Run(podman, "images", "--quiet", "--no-trunc"); out != "sha256:"+image.ID {
		t.Errorf("after save and load the images are %s, want %s", out, image.ID)
	}
}

// cp in both directions, and a mounted image.
func TestPodmanCopyAndMount(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	image := set.Need(t, "web")
	pull(t, s, podman, image)
	s.Run(podman, "create", "--name=c", "--network=none", image.ID, "cat", "/srv/in/app/module")
	from := filepath.Join(s.Dir, "from")
	writeFile(t, filepath.Join(from, "app", "module"), "copied in\n")
	s.Run(podman, "cp", from, "c:/srv/in")
	s.Run(podman, "cp", from+"/app/module", "c:/etc/hostname")
	if out := s.Run(podman, "start", "--attach", "c"); out != "copied in" {
		t.Errorf("the container sees %q", out)
	}
	s.Run(podman, "cp", "c:/etc/nginx", filepath.Join(s.Dir, "out"))
	if text, err := os.ReadFile(filepath.Join(s.Dir, "out", "nginx.conf")); err != nil || !strings.Contains(string(text), "worker_processes") {
		t.Errorf("copied out: %q, %v", text, err)
	}
	mounted := s.Run(podman, "mount", "c")
	if _, err := os.Stat(filepath.Join(mounted, "srv/in/app/module")); err != nil {
		t.Error(err)
	}
	s.Run(podman, "umount", "c")

	root := s.Run(podman, "image", "mount", image.ID)
	if text, err := os.ReadFile(filepath.Join(root, "etc/debian_version")); err != nil || !strings.HasPrefix(string(text), "12.") {
		t.Errorf("the mounted image has %q, %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/written"), nil, 0o644); err == nil {
		t.Error("the mounted image can be written to")
	}
	s.Run(podman, "image", "unmount", image.ID)
	s.Run(podman, "rm", "c")
}

// rmi gives back what an image took, and leaves what others need.
func TestPodmanRemove(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	python, node := set.Need(t, "python"), set.Need(t, "node")
	pull(t, s, podman, python)
	one := freeAfterSync(t, s.Root)
	pull(t, s, podman, node)
	both := freeAfterSync(t, s.Root)
	s.Run(podman, "run", "--name=c", "--network=none", node.ID, "true")
	s.Fails(podman, []string{"image is in use by a container"}, "rmi", node.ID)
	s.Run(podman, "rm", "c")
	s.Run(podman, "rmi", node.ID)
	after := freeAfterSync(t, s.Root)
	if kept := one - after; kept > (one-both)/20 {
		t.Errorf("an image took %d KiB, and its removal left %d KiB of them", (one-both)>>10, kept>>10)
	}
	s.Container(podman, python.ID, "python3 -c 'import json, sqlite3'")
	s.Run(podman, "rmi", python.ID)
	if refs := s.Layers(); len(refs) != 0 {
		t.Errorf("layers are left: %v", refs)
	}
	objects, err := filepath.Glob(filepath.Join(s.Repo(), "objects", "*", "*"))
	if err != nil || len(objects) != 0 {
		t.Errorf("without images the repository still has %d objects, %v", len(objects), err)
	}
}

// What a person sees: info, system df.
func TestPodmanInfo(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	pull(t, s, podman, set.Need(t, "tiny"))
	var info struct {
		Store struct {
			GraphDriverName string
			GraphStatus     map[string]string
			GraphRoot       string
		}
	}
	if err := json.Unmarshal([]byte(s.Run(podman, "info", "--format", "json")), &info); err != nil {
		t.Fatal(err)
	}
	if info.Store.GraphDriverName != "ostree" || len(info.Store.GraphStatus) == 0 || info.Store.GraphRoot != s.Root {
		t.Errorf("podman info gives %+v", info.Store)
	}
	for name, want := range map[string]string{
		"Backing Filesystem": "extfs", "Repository": s.Repo(), "Times": "exact", "Sync": "filesystem", "Hardlink counts": "exact under etc and var",
		"Layers with copied owners": "none", "Store label": "none", "Reflink": "false",
	} {
		if got := info.Store.GraphStatus[name]; got != want {
			t.Errorf("podman info says %q: %q, want %q", name, got, want)
		}
	}
	t.Logf("status: %v", info.Store.GraphStatus)
	if out := s.Run(podman, "system", "df"); !strings.Contains(out, "Images") {
		t.Errorf("podman system df prints\n%s", out)
	}
	out := s.Run(podman, "system", "df", "--verbose")
	if !strings.Contains(out, "localhost/tiny") {
		t.Errorf("podman system df --verbose prints\n%s", out)
	}
	if r := s.Try(podman, "system", "check"); r.Code != 0 {
		t.Logf("%s has no `system check`; the containers-storage commands have it", podman.Version)
	}
}
