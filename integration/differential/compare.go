package differential

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Rules is what a comparison may overlook. The zero value overlooks nothing but
// link counts in the places that docs/format.md names.
type Rules struct {
	// Implied are the directories that no layer lists: overlay gives them the
	// time of extraction.
	Implied map[string]bool
	// Started is when the test began: two times that are both later were not
	// given by a layer, and are equal.
	Started time.Time
	// SharedTimes is for the option mtime=shared: times of files are not compared.
	SharedTimes bool
	// ImageRoot is for layers that are mounted themselves: the oracle's mount gives
	// their root to root for good, whatever its layer says, and ours changes no
	// layer. In containers, which have a root of their own, there is no such excuse.
	ImageRoot bool
	// SharedLinks is for the option links=shared: no link count is exact.
	SharedLinks bool
}

// Difference is one thing that a process could see.
type Difference struct {
	Path  string
	What  string // "mode", "mtime", "attribute user.x", ...
	Want  string // as the oracle has it
	Got   string // as we have it
	Where string // which comparison found it
}

// String is the difference on one line.
func (d Difference) String() string {
	return fmt.Sprintf("%s: %q: %s: overlay has %s, ours has %s", d.Where, shorten(d.Path), d.What, d.Want, d.Got)
}

// Compare returns what differs between the tree that the oracle shows and ours.
func Compare(want, got *Tree, r Rules) []Difference {
	c := comparison{want: want, got: got, rules: r}
	for _, w := range want.Nodes {
		g := got.At(w.Path)
		switch {
		case w.Phantom() && (g == nil || g.Phantom()):
		case g != nil:
			c.node(w, g)
		default:
			c.add(w.Path, "existence", describe(w), "nothing")
		}
	}
	for _, g := range got.Nodes {
		if want.At(g.Path) == nil {
			c.add(g.Path, "existence", "nothing", describe(g))
		}
	}
	if len(c.out) == 0 && r.ImageRoot {
		c.blocks()
	}
	return c.out
}

type comparison struct {
	want, got *Tree
	rules     Rules
	out       []Difference
}

func (c *comparison) add(path, what, want, got string) {
	c.out = append(c.out, Difference{Path: path, What: what, Want: want, Got: got})
}

func (c *comparison) node(w, g *Node) {
	differ := func(what string, want, got any) {
		if want != got {
			c.add(w.Path, what, fmt.Sprint(want), fmt.Sprint(got))
		}
	}
	if w.Type() != g.Type() {
		c.add(w.Path, "type", describe(w), describe(g))
		return
	}
	if w.Mode != g.Mode {
		c.add(w.Path, "mode", fmt.Sprintf("%#o", w.Mode), fmt.Sprintf("%#o", g.Mode))
	}
	if !(c.rules.ImageRoot && w.Path == "." && w.UID == 0 && w.GID == 0) {
		differ("uid", w.UID, g.UID)
		differ("gid", w.GID, g.GID)
	}
	differ("rdev", w.Rdev, g.Rdev)
	differ("target", w.Target, g.Target)
	if w.Type() != unix.S_IFDIR {
		// A directory's size tells of the history of its blocks, not of an image.
		differ("size", w.Size, g.Size)
	}
	if w.Sum != g.Sum {
		c.add(w.Path, "content", fmt.Sprintf("%x", w.Sum[:8]), fmt.Sprintf("%x", g.Sum[:8]))
	}
	if c.rules.ImageRoot { // a container's files grow as the filesystem likes
		if g.Dense > 0 {
			c.add(w.Path, "bytes of long runs of zeros that are no holes", "any number", fmt.Sprint(g.Dense))
		}
		if g.Hole < w.Hole {
			c.add(w.Path, "bytes in holes", fmt.Sprint(w.Hole), fmt.Sprint(g.Hole))
		}
	}
	c.mtime(w, g)
	c.xattrs(w, g)
	c.links(w, g)
}

func (c *comparison) mtime(w, g *Node) {
	if w.Sec == g.Sec && w.Nsec == g.Nsec {
		return
	}
	switch w.Type() {
	case unix.S_IFDIR:
		if c.rules.Implied[w.Path] {
			return
		}
	case unix.S_IFREG, unix.S_IFLNK:
		if c.rules.SharedTimes {
			return
		}
	}
	if s := c.rules.Started; !s.IsZero() && s.Unix() <= w.Sec && s.Unix() <= g.Sec &&
		w.Sec <= time.Now().Unix() && g.Sec <= time.Now().Unix() {
		return
	}
	c.add(w.Path, "mtime", formatTime(w.Sec, w.Nsec), formatTime(g.Sec, g.Nsec))
}

// xattrs compares attributes. Those that overlayfs hides by itself on the
// oracle's side, where they act on the mount, are left out: ours are kept from
// acting, and tests of their own say what they look like.
func (c *comparison) xattrs(w, g *Node) {
	names := map[string]bool{}
	for name := range w.Xattrs {
		names[name] = true
	}
	for name := range g.Xattrs {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		wv, wok := w.Xattrs[name]
		gv, gok := g.Xattrs[name]
		if wv == gv && wok == gok {
			continue
		}
		c.add(w.Path, "attribute "+name, quoteValue(wv, wok), quoteValue(gv, gok))
	}
}

func quoteValue(v string, ok bool) string {
	if !ok {
		return "none"
	}
	return fmt.Sprintf("%q", shorten(v))
}

// links compares which names are one inode, and the link counts where they are
// promised.
func (c *comparison) links(w, g *Node) {
	if w.Type() != unix.S_IFDIR {
		wn, gn := c.want.Names(w), c.got.Names(g)
		if !slices.Equal(wn, gn) {
			c.add(w.Path, "names of the inode", quoteNames(wn), quoteNames(gn))
			return
		}
	}
	linkable := w.Type() == unix.S_IFLNK || w.Type() == unix.S_IFREG && w.Size > 0
	exact := !linkable || w.Type() == unix.S_IFREG && privatePlace(w.Path) && !c.rules.SharedLinks
	if exact && w.Nlink != g.Nlink {
		c.add(w.Path, "link count", fmt.Sprint(w.Nlink), fmt.Sprint(g.Nlink))
	}
	if !exact && g.Nlink < w.Nlink {
		c.add(w.Path, "link count", fmt.Sprintf("%d (a linked file has at least as many)", w.Nlink), fmt.Sprint(g.Nlink))
	}
}

func quoteNames(names []string) string {
	q := make([]string, 0, len(names))
	for _, n := range names {
		q = append(q, fmt.Sprintf("%q", shorten(n)))
	}
	return strings.Join(q, " ")
}

// blocks compares what the files of the two trees take: holes need not be the
// same, but exactness must not cost space within a root.
func (c *comparison) blocks() {
	w, _ := c.want.blocks()
	g, slack := c.got.blocks()
	if g > w+slack {
		c.add(".", "blocks of all files", fmt.Sprintf("%d", w), fmt.Sprintf("%d", g))
	}
}

// blocks returns the sum over all files, and how far two sums may be apart
// without meaning anything: where an attribute lands, in the inode or in a
// block, depends on the order in which attributes were set, and the oracle's
// order is random.
func (t *Tree) blocks() (sum, slack int64) {
	seen := map[[2]uint64]bool{}
	for _, n := range t.Nodes {
		key := [2]uint64{n.Dev, n.Ino}
		if n.Type() == unix.S_IFREG && !seen[key] {
			seen[key] = true
			sum += n.Blocks
			if len(n.Xattrs) > 0 {
				slack += 8
			}
		}
	}
	return sum, slack
}

func describe(n *Node) string {
	kinds := map[uint32]string{
		0:            "a name without anything",
		unix.S_IFREG: "a file", unix.S_IFDIR: "a directory", unix.S_IFLNK: "a symlink",
		unix.S_IFCHR: "a character device", unix.S_IFBLK: "a block device", unix.S_IFIFO: "a fifo", unix.S_IFSOCK: "a socket",
	}
	return kinds[n.Type()]
}
