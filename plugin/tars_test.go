package plugin_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"
)

// An entry is one entry of a layer tar.
type entry struct {
	name   string
	body   string // of a regular file
	mode   int64  // 0 is 0644, and 0755 for directories
	link   string // a hardlink to this name
	target string // a symbolic link to this
	kind   byte   // else; tar.TypeChar and so on
	uid    int
	xattrs map[string]string
}

// entryTime is the time of every entry; nanoseconds, because a store that drops them is not exact.
var entryTime = time.Unix(1700000000, 123456789)

// layerTar makes a tar, with the padding that tar(1) writes.
func layerTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.uid, Gid: e.uid, ModTime: entryTime, Format: tar.FormatPAX, Typeflag: e.kind}
		switch {
		case strings.HasSuffix(e.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, or(e.mode, 0o755)
		case e.link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeLink, e.link, or(e.mode, 0o644)
		case e.target != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.target, 0o777
		case e.kind == 0:
			h.Typeflag, h.Size, h.Mode = tar.TypeReg, int64(len(e.body)), or(e.mode, 0o644)
		}
		for k, v := range e.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = make(map[string]string)
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(e.body)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.Write(make([]byte, 10240-b.Len()%10240))
	return b.Bytes()
}

func or(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// baseLayer has one of everything.
func baseLayer(t testing.TB) []byte {
	return layerTar(t,
		entry{name: "./"}, entry{name: "bin/"},
		entry{name: "bin/busybox", body: strings.Repeat("busybox ", 4000), mode: 0o755},
		entry{name: "bin/ls", link: "bin/busybox", mode: 0o755},
		entry{name: "bin/su", body: "su", mode: 0o4755},
		entry{name: "etc/"},
		entry{name: "etc/passwd", body: "root:x:0:0::/root:/bin/sh\n"},
		entry{name: "etc/passwd-", body: "root:x:0:0::/root:/bin/sh\n"},
		entry{name: "etc/empty"}, entry{name: "etc/empty2"},
		entry{name: "dev/"},
		entry{name: "dev/fifo", kind: tar.TypeFifo, mode: 0o600},
		entry{name: "lib", target: "usr/lib"},
		entry{name: "usr/"}, entry{name: "usr/lib/"},
		entry{name: "usr/lib/one", body: "the same text", uid: 7},
		entry{name: "usr/lib/two", body: "the same text", uid: 7},
		entry{name: "usr/lib/attr", body: "with an attribute", xattrs: map[string]string{"user.x": "y"}},
		entry{name: "var/"}, entry{name: "var/tmp/", mode: 0o1777},
	)
}

// changeLayer changes, deletes and hides what baseLayer has.
func changeLayer(t testing.TB) []byte {
	return layerTar(t,
		entry{name: "etc/"},
		entry{name: "etc/.wh.passwd-"},
		entry{name: "etc/passwd", body: "root:x:0:0::/root:/bin/bash\n"},
		entry{name: "usr/"}, entry{name: "usr/lib/"},
		entry{name: "usr/lib/three", body: "the same text", uid: 7},
		entry{name: "var/"}, entry{name: "var/.wh..wh..opq"},
		entry{name: "var/new", body: "new"},
	)
}
