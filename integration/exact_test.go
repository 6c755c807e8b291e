package integration_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// With mtime=shared, and images that have equal files of other times in one store, podman says of containers and images
// what it says on overlay.
func TestPodmanSharedTimes(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	ours.Options = []string{"mtime=shared"}
	first, image := set.Need(t, "python"), set.Need(t, "web")
	var said []string
	for _, s := range []*programs.Store{ours, overlay} {
		pull(t, s, podman, first)
		pull(t, s, podman, image)
		s.Run(podman, "run", "--name=c", "--network=none", image.ID, "/bin/sh", "-ec", `
			cp -a /usr/share/common-licenses /srv/licenses; rm -rf /usr/share/nginx; chmod 700 /usr/share/doc; touch /etc/nginx/nginx.conf
			tr a-z b-za </etc/debian_version >/tmp/x; cat /tmp/x >/etc/debian_version; ln /usr/bin/perl /srv/perl; mv /usr/share/bug /usr/share/bugs`)
		of := func(args ...string) string { return sorted(s.Run(podman, append([]string{"diff"}, args...)...)) }
		changes := of("c")
		id := s.Run(podman, "commit", "--quiet", "c", "localhost/committed:1")
		said = append(said, changes+"\n--\n"+of(id)+"\n--\n"+of(image.ID)+"\n--\n"+of(first.ID))
		s.Run(podman, "rm", "c")
	}
	same(t, "podman diff", said[0], said[1])
	if !strings.Contains(said[0], "D /usr/share/nginx") || !strings.Contains(said[0], "C /etc/debian_version") {
		t.Errorf("podman diff says\n%s", said[0])
	}
}

// What podman pushes to a directory are the layers' own bytes: pulled ones and the one that a container was committed to.
func TestPodmanPushToDirectory(t *testing.T) {
	t.Parallel()
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	s := newStore(t, "ostree")
	for _, image := range []fixtures.Image{set.Need(t, "tiny"), set.Need(t, "busybox")} {
		pull(t, s, podman, image)
		s.Run(podman, "create", "--name=c", image.ID, "true")
		writeFile(t, filepath.Join(s.Dir, "new"), "new\n")
		s.Run(podman, "cp", filepath.Join(s.Dir, "new"), "c:/new")
		committed := s.Run(podman, "commit", "--quiet", "c")
		s.Run(podman, "rm", "c")
		for _, id := range []string{image.ID, committed} {
			var want []string
			out := s.Run(podman, "image", "inspect", "--format", "{{json .RootFS.Layers}}", id)
			if err := json.Unmarshal([]byte(out), &want); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(s.Dir, "pushed-"+image.Name+id[:12])
			s.Run(podman, "push", "--quiet", id, "dir:"+dir)
			same(t, "DiffIDs of what was pushed", strings.Join(pushed(t, dir), "\n"), strings.Join(want, "\n"))
		}
		var diffIDs []string
		for _, l := range image.Layers {
			diffIDs = append(diffIDs, l.DiffID)
		}
		same(t, "DiffIDs of the image", strings.Join(pushed(t, filepath.Join(s.Dir, "pushed-"+image.Name+image.ID[:12])), "\n"), strings.Join(diffIDs, "\n"))
	}
}

// pushed reads the layers in the directory of a push, and gives the digests of what they decompress to.
func pushed(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal(text, &manifest); err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, l := range manifest.Layers {
		b, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(l.Digest, "sha256:")))
		if err != nil {
			t.Fatal(err)
		}
		var r io.Reader = bytes.NewReader(b)
		if bytes.HasPrefix(b, []byte("\x1f\x8b")) {
			if r, err = gzip.NewReader(r); err != nil {
				t.Fatal(err)
			}
		}
		h := sha256.New()
		if _, err := io.Copy(h, r); err != nil {
			t.Fatal(err)
		}
		list = append(list, "sha256:"+hex.EncodeToString(h.Sum(nil)))
	}
	return list
}
