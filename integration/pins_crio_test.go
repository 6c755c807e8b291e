package integration_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ostree-storage/ostree-storage/integration/fixtures"
	"github.com/ostree-storage/ostree-storage/integration/internal/programs"
	"github.com/ostree-storage/ostree-storage/internal/testfs"
)

// A crioHost is a store with a pinned image and one that is not pinned, under CRI-O.
type crioHost struct {
	*pinned
	crio   *programs.CRIO
	tagged bool          // the pinned image is in graphroot as well
	pod    *programs.Pod // of the pinned image; nil if none was started
}

// A fate is what becomes of an image that is not pinned.
type fate uint8

const (
	goes fate = iota
	stays
	// checked images stay, unless a container stands on the pinned store alone: up to v1.63, containers/storage's check takes such a
	// container for damaged, with any driver, and CRI-O then repairs by wiping.
	checked
)

// A crioRemoval is a way in which images get lost on a host of CRI-O. It begins with a server that runs.
type crioRemoval struct {
	name  string
	fate  fate
	other bool // a container of the other image is there: CRI-O wipes images of its containers
	run   func(h *crioHost)
}

// reboot ends everything, after a shutdown or without one.
func (h *crioHost) reboot(s syscall.Signal) {
	h.crio.Stop(s)
	h.crio.Reboot()
}

// wipe runs a command of CRI-O that has to work.
func (h *crioHost) wipe(args ...string) {
	h.t.Helper()
	r := h.crio.Command(args...)
	if r.Code != 0 {
		h.t.Error(r)
	}
}

var crioPaths = []crioRemoval{
	{"crio wipe", stays, true, func(h *crioHost) {
		h.crio.Stop(syscall.SIGTERM)
		h.wipe("wipe")
	}},
	{"crio wipe after an upgrade and a reboot, without internal_wipe", goes, true, func(h *crioHost) {
		h.reboot(syscall.SIGTERM)
		h.crio.Configure("[crio]\ninternal_wipe = false\n")
		h.upgrade()
		h.wipe("wipe")
	}},
	{"crio wipe -f", goes, true, func(h *crioHost) {
		h.crio.Stop(syscall.SIGTERM)
		h.wipe("wipe", "-f")
	}},
	{"crio wipe after a power cut", goes, false, func(h *crioHost) {
		h.reboot(syscall.SIGKILL)
		h.wipe("wipe")
		h.noGraphroot()
	}},
	{"crio wipe -f after a power cut", goes, false, func(h *crioHost) {
		h.reboot(syscall.SIGKILL)
		h.wipe("wipe", "-f")
		h.noGraphroot()
	}},
	{"crio check -r -f -w", checked, false, func(h *crioHost) {
		h.crio.Stop(syscall.SIGTERM)
		h.wipe("check", "-r", "-f", "-w")
	}},
	{"internal_wipe: start after a reboot", stays, true, func(h *crioHost) {
		h.reboot(syscall.SIGTERM)
		h.crio.Start()
	}},
	{"internal_wipe: start after an upgrade", goes, true, func(h *crioHost) {
		h.crio.Stop(syscall.SIGTERM)
		h.upgrade()
		h.crio.Start()
	}},
	{"internal_repair: start after a power cut", checked, true, func(h *crioHost) {
		h.reboot(syscall.SIGKILL)
		h.crio.Start()
	}},
	{"crio wipe and start after a power cut, without clean_shutdown_file", stays, true, func(h *crioHost) {
		h.reboot(syscall.SIGKILL)
		h.crio.Configure("[crio]\nclean_shutdown_file = \"\"\n")
		h.wipe("wipe")
		h.crio.Start()
	}},
	{"internal_repair: start after a power cut that damaged an image", goes, false, func(h *crioHost) {
		h.reboot(syscall.SIGKILL)
		for id, diff := range h.s.Layers() {
			if diff == h.other.Layers[0].DiffID {
				programs.Must(h.t, "rm", "-rf", filepath.Join(h.s.Home(), "layers", id))
			}
		}
		h.crio.Start()
	}},
	{"CRI RemoveImage, as crictl rmi", goes, false, func(h *crioHost) {
		if h.pod != nil {
			// CRI-O refuses; of an image of a read-only store it says that it is gone, and does nothing.
			err := h.crio.RemoveImage(h.image.ID)
			if h.tagged && (err == nil || !strings.Contains(err.Error(), "in use")) || !h.tagged && err != nil {
				h.t.Errorf("removal of an image in use: %v", err)
			}
			if out := h.pod.Exec("echo on"); out != "on\n" {
				h.t.Errorf("the pod prints %q", out)
			}
			h.pod.Remove()
		}
		for _, name := range []string{h.image.Ref(), h.image.ID, h.other.ID} {
			if err := h.crio.RemoveImage(name); err != nil {
				h.t.Error(err)
			}
		}
	}},
	{"CRI RemoveImage of all that is not in use, as crictl rmi --prune", goes, false, func(h *crioHost) {
		h.collect(false)
	}},
	{"a collector like kubelet's, over the CRI", goes, false, func(h *crioHost) {
		h.storagectl("pin", h.image.Ref(), "--name", "crio", "--crio-config", h.crio.ConfigDir())
		h.crio.Stop(syscall.SIGTERM)
		h.crio.Start()
		if tried := h.collect(true); tried[h.image.ID] || !tried[h.other.ID] {
			h.t.Errorf("the collector tried %v", tried)
		}
	}},
	{"a collector like kubelet's, over the CRI, that knows no pins", goes, false, func(h *crioHost) {
		if tried := h.collect(true); !tried[h.other.ID] || h.pod == nil && !tried[h.image.ID] {
			h.t.Errorf("the collector tried %v", tried)
		}
	}},
}

// upgrade leaves the version file of another CRI-O.
func (h *crioHost) upgrade() {
	h.t.Helper()
	writeFile(h.t, h.crio.State("version-persist"), `"1.0.0"`)
}

// noGraphroot checks that CRI-O took the harsh way that the case is about.
func (h *crioHost) noGraphroot() {
	h.t.Helper()
	if _, err := os.Stat(filepath.Join(h.s.Root, "ostree-images", "images.json")); !os.IsNotExist(err) {
		h.t.Errorf("CRI-O left graphroot: %v", err)
	}
}

// collect removes every image that no container uses, and gives those that it tried. Kubelet leaves pinned ones alone.
func (h *crioHost) collect(heed bool) map[string]bool {
	h.t.Helper()
	used, tried := h.crio.Used(), map[string]bool{}
	for id, image := range h.crio.Images() {
		if used[id] || heed && image.Pinned {
			continue
		}
		tried[id] = true
		// The image of the pods' sandboxes is in use as well, which ListContainers does not say.
		if err := h.crio.RemoveImage(id); err != nil && !strings.Contains(err.Error(), "in use") {
			h.t.Error(err)
		}
	}
	return tried
}

// TestPinsSurviveCRIO is TestPinsSurvive for CRI-O's removal paths. They run where CRIO names a CRI-O that was built with the driver.
func TestPinsSurviveCRIO(t *testing.T) {
	var names []string
	for _, r := range crioPaths {
		names = append(names, r.name)
	}
	crio, ok := programs.CRIOBinary(t)
	if !ok {
		reportPaths(t, nil, names)
		t.Skip("CRIO names no CRI-O with the driver")
	}
	t.Logf("program: %s", crio.Version)
	podman, set := programs.Find(t, "podman"), fixtures.Require(t)
	dir := testfs.Mount(t, "ext4")
	var run, left []string
	for n, r := range crioPaths {
		cases := 0
		for i := range 4 {
			tagged, ran := i < 2, i%2 == 1
			t.Run(fmt.Sprintf("%s/tagged=%v/ran=%v", r.name, tagged, ran), func(t *testing.T) {
				p := newPinned(t, podman, set, filepath.Join(dir, fmt.Sprint(4*n+i)))
				survivesCRIO(t, p, crio, r, tagged, ran)
				cases++
			})
		}
		if cases == 4 {
			run = append(run, r.name)
		} else {
			left = append(left, r.name)
		}
	}
	reportPaths(t, run, left)
}

// survivesCRIO runs one removal of CRI-O's.
func survivesCRIO(t *testing.T, p *pinned, crio programs.Program, r crioRemoval, tagged, ran bool) {
	t.Helper()
	h := &crioHost{pinned: p, crio: newCRIO(t, p.s, p.podman, crio), tagged: tagged}
	if !tagged {
		p.s.Run(p.podman, "rmi", "-f", p.image.ID)
	}
	h.crio.Start()
	if ran {
		h.pod = h.crio.Run(programs.PodSpec{Name: "os", Image: p.image.Ref()})
	}
	if r.other {
		h.crio.Run(programs.PodSpec{Name: "other", Image: p.other.Ref()})
	}
	r.run(h)
	// CRI-O has the pinned image still, and runs it.
	pauseImage(t, p.s, p.podman)
	if h.crio.PID() == 0 {
		h.crio.Start()
	}
	images := h.crio.Images()
	if _, ok := images[p.image.ID]; !ok {
		t.Errorf("CRI-O lists %v", slices.Collect(maps.Keys(images)))
	}
	_, ok := images[p.other.ID]
	if want := r.fate != goes; ok != want && (r.fate != checked || tagged || !ran) {
		t.Errorf("the image that is not pinned is listed: %v, want %v", ok, want)
	}
	pod := h.crio.Run(programs.PodSpec{Name: "after", Image: p.image.Ref()})
	if out := pod.Exec("echo fine"); out != "fine\n" {
		t.Errorf("a pod of the pinned image prints %q", out)
	}
	pod.Remove()
	h.crio.Stop(syscall.SIGTERM)
	h.crio.Leave()
	if t.Failed() {
		t.Log(h.crio.Log())
	}
	p.alive()
	if r.fate == goes {
		p.onlyPinned()
	}
}
