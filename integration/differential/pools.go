package differential

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"time"
)

// pools are the values that one chain draws from: few, so that entries are
// equal often.
type pools struct {
	names  []string
	bodies [][]byte
	times  []time.Time
	owners [][2]int
	files  []int64 // modes of files
	dirs   []int64
	xattrs []attr
}

type attr struct{ name, value string }

func makePools(r *rand.Rand, f Features) *pools {
	p := &pools{}
	n := 12
	if f.Has(EqualFiles) {
		n = 2
	}
	p.names = draw(r, 7, plainNames)
	if f.Has(OddNames) {
		p.names = append(p.names, draw(r, 4, oddNames())...)
	}
	if f.Has(DeepPaths) {
		p.names = append(p.names, strings.Repeat("d", 200), strings.Repeat("e", 255))
	}
	p.bodies = makeBodies(r, f, n)
	p.times = draw(r, n, plainTimes)
	if f.Has(OddTimes) {
		p.times = append(p.times, draw(r, 2, oddTimes)...)
	}
	p.owners = draw(r, n, [][2]int{{0, 0}, {0, 0}, {1, 1}, {1000, 1000}, {65534, 65534}, {0, 42}, {4294967294, 4294967294}, {2147483648, 7}})
	p.files = draw(r, n, []int64{0o644, 0o755, 0o600, 0o444})
	p.dirs = draw(r, n, []int64{0o755, 0o700, 0o555, 0o775})
	if f.Has(OddModes) {
		p.files = append(p.files, draw(r, 2, []int64{0o4755, 0o2755, 0o6711, 0, 0o777, 0o1644, 0o7777, 0o111})...)
		p.dirs = append(p.dirs, draw(r, 2, []int64{0o1777, 0o2775, 0, 0o7777, 0o4755})...)
	}
	p.xattrs = makeXattrs(r, f)
	return p
}

// draw returns n members of list, or all if there are fewer, in random order.
func draw[T any](r *rand.Rand, n int, list []T) []T {
	out := make([]T, 0, n)
	for _, i := range r.Perm(len(list))[:min(n, len(list))] {
		out = append(out, list[i])
	}
	return out
}

var plainNames = []string{
	"etc", "var", "lib", "cache", "usr", "bin", "sh", "log", "spool", "cron.d", "tmp", "run", "dev", "a", "b", "c",
}

// oddNames are legal names that something in between may trip over: bytes that
// are no UTF-8, what overlay options separate with, what our own format uses.
func oddNames() []string {
	return []string{
		"\xff\xfe", "\xe4\xf6", "caf\xc3\xa9", "\xed\xa0\x80", strings.Repeat("n", 255), strings.Repeat("\xc3\xa9", 127), strings.Repeat("\xfe", 255),
		"a:b", "a,b", "a\\b", "new\nline", "tab\t", " ", "-rf", "...", "..a", ".wh", "wh.a", ".oci-raw.x", ".oci-raw.", ".ostree-wh.x",
		".oci-raw." + strings.Repeat("0", 64), "\x7f", "%s", "*", "lost+found", "trusted.overlay.opaque", "\xef\xbb\xbfbom", "ÅÅ",
	}
}

var plainTimes = []time.Time{
	time.Unix(1700000000, 0), time.Unix(1700000000, 1), time.Unix(1600000000, 0), time.Unix(1, 0), time.Unix(1700000000, 999999999),
}

// The end of ext4's range is in 2446, xfs ends in 2486 (or 2038 without
// bigtime), btrfs never.
var oddTimes = []time.Time{
	time.Unix(0, 0), time.Unix(-1, 0), time.Unix(-1, 500000000), time.Unix(-86400*365*30, 7), time.Unix(1<<31-1, 999999999),
	time.Unix(1<<31, 0), time.Unix(1<<32, 5), time.Unix(15032385535, 0), time.Unix(15032385536, 0), time.Unix(16299260425, 0),
	time.Unix(16299260426, 3), time.Unix(253402300799, 0), time.Unix(1<<31, 123456789), time.Unix(9223372036, 854775807),
}

func makeBodies(r *rand.Rand, f Features, n int) [][]byte {
	sizes := []int{0, 1, 13, 100, 4095, 4096, 4097, 20000, 60000}
	bodies := [][]byte{nil}
	for range n {
		size := sizes[r.IntN(len(sizes))]
		if r.IntN(3) > 0 {
			size = 1 + r.IntN(50)
		}
		bodies = append(bodies, randomBytes(r, size))
	}
	if f.Has(LargeFiles) {
		sparse := make([]byte, 1<<20+4096+5)
		copy(sparse[512<<10:], "in the middle")
		bodies = append(bodies, sparse, make([]byte, 256<<10), randomBytes(r, 1<<20+1), append(make([]byte, 128<<10), 'x'))
		bodies = append(bodies, patchwork(r), patchwork(r))
	}
	return bodies
}

// patchwork is a body of data and runs of zeros in turn, on the grid of blocks and
// off it, longer and shorter than what becomes a hole.
func patchwork(r *rand.Rand) []byte {
	var b []byte
	for range 2 + r.IntN(8) {
		b = append(b, randomBytes(r, 1+r.IntN(20000))...)
		if r.IntN(2) == 0 {
			b = b[:len(b)-len(b)%holeBlock]
		}
		b = append(b, make([]byte, pick(r, []int{4096, 32767, 32768, 36864, 100000, 300000}))...)
	}
	if r.IntN(2) == 0 {
		b = append(b, 'x')
	}
	return b
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:n]
}

func makeXattrs(r *rand.Rand, f Features) []attr {
	var out []attr
	add := func(feature Features, n int, list ...attr) {
		if f.Has(feature) {
			out = append(out, draw(r, n, list)...)
		}
	}
	add(UserXattrs, 3, attr{"user.a", "x"}, attr{"user.a", "y"}, attr{"user.empty", ""}, attr{"user.bin", "\x00\xff\n="},
		attr{"user.long", strings.Repeat("v", 1000)}, attr{"user." + strings.Repeat("k", 200), "k"}, attr{"user.e2", ""})
	add(TrustedXattrs, 2, attr{"trusted.t", "x"}, attr{"trusted.empty", ""}, attr{"security.s", "x"},
		attr{"security.ima", "\x03\x02"}, attr{"security.selinux", "system_u:object_r:x_t:s0\x00"}, attr{"security.none", ""})
	add(Capabilities, 2, attr{"security.capability", capability(2, 1<<13)}, attr{"security.capability", capability(2, 1<<10)},
		attr{"security.capability", capability(3, 1<<13)})
	add(ACLs, 3, attr{aclAccess, acl(7, 5, 5, 1000)}, attr{aclAccess, acl(6, 4, 4, 33)}, attr{aclDefault, acl(7, 5, 0, 1000)},
		attr{aclAccess, minimalACL(6, 4, 0)}, attr{aclDefault, minimalACL(7, 5, 5)})
	add(OverlayXattrs, 2, attr{"user.overlay.opaque", "y"}, attr{"user.overlay.redirect", "/etc"}, attr{"user.overlay.x", ""},
		attr{"trusted.overlay.inert", "x"}, attr{"user.overlay.whiteout", "y"}, attr{"user.overlay.metacopy", ""},
		attr{"user.overlay.overlay.opaque", "y"})
	return out
}

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// capability returns a VFS capability blob of the given revision.
func capability(revision byte, permitted uint32) string {
	b := []byte{1, 0, 0, revision} // little-endian magic; the low byte says "effective"
	b = binary.LittleEndian.AppendUint32(b, permitted)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint32(b, 0)
	if revision == 3 {
		b = binary.LittleEndian.AppendUint32(b, 100000)
	}
	return string(b)
}

// acl returns an ACL blob with a named user, in the form of the attribute.
func acl(owner, group, other uint16, uid uint32) string {
	return aclBlob([][3]uint32{
		{1, uint32(owner), ^uint32(0)}, {2, 6, uid}, {4, uint32(group), ^uint32(0)}, {16, 7, ^uint32(0)}, {32, uint32(other), ^uint32(0)},
	})
}

// minimalACL says no more than a mode does; the kernel keeps no attribute.
func minimalACL(owner, group, other uint32) string {
	return aclBlob([][3]uint32{{1, owner, ^uint32(0)}, {4, group, ^uint32(0)}, {32, other, ^uint32(0)}})
}

// aclBlob encodes entries of tag, permissions, id.
func aclBlob(entries [][3]uint32) string {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return string(b)
}
