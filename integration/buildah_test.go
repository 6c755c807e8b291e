package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
)

// Each verb of buildah: pull, from, run, copy, config, mount, diff of what it made, commit, push, rm, rmi.
func TestBuildahVerbs(t *testing.T) {
	t.Parallel()
	buildah, set := programs.Find(t, "buildah"), fixtures.Require(t)
	s := newStore(t, "ostree")
	image := set.Need(t, "python")
	if id := s.Run(buildah, "pull", "--quiet", "oci:"+image.Layout+":"+image.Ref()); id != image.ID {
		t.Errorf("pull gives the ID %s, want %s", id, image.ID)
	}
	s.Run(buildah, "from", "--pull=never", "--name=work", image.ID)
	s.Run(buildah, "run", "work", "/bin/sh", "-ec", "rm -r /usr/share/doc; echo run >/run-wrote; cp /etc/passwd /etc/passwd2; mv /etc/passwd2 /etc/group2")
	from := filepath.Join(s.Dir, "from")
	writeFile(t, filepath.Join(from, "copied"), "copied\n")
	s.Run(buildah, "copy", "work", from, "/srv/copied")
	s.Run(buildah, "add", "work", image.Layers[1].Tar, "/srv/added")
	s.Run(buildah, "config", "--cmd", "cat /srv/copied/copied", "--label", "made=here", "work")
	root := s.Run(buildah, "mount", "work")
	if err := os.WriteFile(filepath.Join(root, "etc", "mounted"), []byte("x"), 0o600); err != nil {
		t.Error(err)
	}
	s.Run(buildah, "umount", "work")
	made := s.Run(buildah, "commit", "--quiet", "work", "localhost/made:1")
	s.Run(buildah, "from", "--pull=never", "--name=check", "localhost/made:1")
	s.Run(buildah, "run", "check", "/bin/sh", "-ec",
		"test ! -e /usr/share/doc; test -e /run-wrote; test -e /etc/mounted; cmp /etc/group2 /etc/passwd; test -e /srv/copied/copied; python3 -c 'import json'")
	out := filepath.Join(s.Dir, "out")
	s.Run(buildah, "push", "--quiet", made, "oci-archive:"+out)
	if got := readArchive(t, out); len(got) != 3 || got[0] != image.Layers[0].DiffID || got[1] != image.Layers[1].DiffID {
		t.Errorf("pushed layers are %v", got)
	}
	if list := s.Run(buildah, "images", "--no-trunc", "--quiet"); !strings.Contains(list, made) || !strings.Contains(list, image.ID) {
		t.Errorf("buildah images lists %s", list)
	}
	if text := s.Run(buildah, "info"); !strings.Contains(text, `"GraphDriverName": "ostree"`) {
		t.Errorf("buildah info prints\n%s", text)
	}
	s.Run(buildah, "rm", "--all")
	s.Run(buildah, "rmi", "--all", "--force")
	if left := s.Layers(); len(left) != 0 {
		t.Errorf("layers are left: %v", left)
	}
}

// The Containerfile of podman's test gives the same image with overlay and with the driver.
func TestBuildahBuild(t *testing.T) {
	t.Parallel()
	buildah, set := programs.Find(t, "buildah"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	image := set.Need(t, "python")
	context := filepath.Join(ours.Dir, "context")
	writeContext(t, context)
	var ids []string
	for _, s := range []*programs.Store{ours, overlay} {
		s.Run(buildah, "pull", "--quiet", "oci:"+image.Layout+":"+image.Ref())
		s.Run(buildah, "tag", image.ID, image.Ref())
		s.Run(buildah, "build", "--quiet", "--pull=never", "--layers", "--timestamp=1790000000", "--cap-add=CAP_MKNOD", "-t", "localhost/built:1", context)
		ids = append(ids, s.Run(buildah, "inspect", "--type=image", "--format", "{{.FromImageID}} {{.OCIv1.RootFS.DiffIDs}}", "localhost/built:1"))
		// A second build comes from the cache.
		first := s.Run(buildah, "images", "--no-trunc", "--quiet", "localhost/built:1")
		s.Run(buildah, "build", "--quiet", "--pull=never", "--layers", "--timestamp=1790000000", "--cap-add=CAP_MKNOD", "-t", "localhost/built:1", context)
		if again := s.Run(buildah, "images", "--no-trunc", "--quiet", "localhost/built:1"); again != first {
			t.Errorf("%s: the second build gives %s, the first gave %s", s.Driver, again, first)
		}
	}
	same(t, "built image", ids[0], ids[1])
}

// skopeo copies in, out and between stores, and deletes.
func TestSkopeo(t *testing.T) {
	t.Parallel()
	skopeo, set := programs.Find(t, "skopeo"), fixtures.Require(t)
	ours, overlay := twoStores(t)
	for _, image := range []fixtures.Image{set.Need(t, "trixie"), set.Need(t, "busybox"), set.Need(t, "tiny")} {
		name := ours.Reference("localhost/" + image.Name + ":1")
		ours.Run(skopeo, "copy", "--quiet", "oci:"+image.Layout+":"+image.Ref(), name)
		if text := ours.Run(skopeo, "inspect", "--format", "{{.Layers}}", name); strings.Count(text, "sha256:") != len(image.Layers) {
			t.Errorf("inspect gives the layers %s", text)
		}
		var want []string
		for _, l := range image.Layers {
			want = append(want, l.DiffID)
		}
		archive := filepath.Join(ours.Dir, image.Name+".tar")
		ours.Run(skopeo, "copy", "--quiet", name, "oci-archive:"+archive)
		same(t, "DiffIDs of a copy of "+image.Name, strings.Join(readArchive(t, archive), "\n"), strings.Join(want, "\n"))

		theirs := overlay.Reference("localhost/" + image.Name + ":1")
		overlay.Run(skopeo, "copy", "--quiet", "oci:"+image.Layout+":"+image.Ref(), theirs)
		back := filepath.Join(ours.Dir, image.Name+"-overlay.tar")
		overlay.Run(skopeo, "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", theirs, "oci-archive:"+back)
		same(t, "DiffIDs out of overlay", strings.Join(readArchive(t, back), "\n"), strings.Join(want, "\n"))
		if err := os.Remove(back); err != nil {
			t.Fatal(err)
		}
		ours.Run(skopeo, "delete", name)
	}
	if left := ours.Layers(); len(left) != 0 {
		t.Errorf("layers are left: %v", left)
	}
}
