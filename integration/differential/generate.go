package differential

import (
	"archive/tar"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// Generate makes the chain of a seed: always the same one.
func Generate(seed uint64) (Chain, Features) {
	r := rand.New(rand.NewPCG(seed, 0x6f7374726565))
	f := swarm(r)
	g := &generator{r: r, f: f, p: makePools(r, f), merged: map[string]byte{}}
	var c Chain
	for range 1 + r.IntN(4) {
		if len(c) > 0 && f.Has(Repeats) && r.IntN(2) == 0 {
			l := c[r.IntN(len(c))]
			if r.IntN(2) == 0 {
				l = l[:r.IntN(len(l)+1)]
			}
			g.note(l)
			c = append(c, l)
			continue
		}
		c = append(c, g.layer())
	}
	return c, f
}

// generator builds one chain. It keeps a rough idea of what exists, enough to
// make most layers acceptable to the oracle; it need not be right.
type generator struct {
	r      *rand.Rand
	f      Features
	p      *pools
	merged map[string]byte // what the layers below show, by path
	here   map[string]byte // what this layer has so far; 'w' is a whiteout
	listed map[string]bool // directories that have an entry in this layer
	turned []string        // paths that became something else in a layer
	out    Layer
}

// operation is one step of building a layer.
type operation struct {
	weight int
	needs  Features
	do     func(*generator)
}

var operations = []operation{
	{10, 0, (*generator).file},
	{3, 0, (*generator).directory},
	{1, 0, (*generator).touchDirectory},
	{5, Symlinks, (*generator).symlink},
	{4, Specials, (*generator).special},
	{1, ZeroDevices, (*generator).zeroDevice},
	{7, Hardlinks, (*generator).hardlink},
	{1, Farms, (*generator).farm},
	{6, Whiteouts, (*generator).whiteout},
	{2, Opaque, (*generator).opaque},
	{6, Replacements, (*generator).replace},
	{2, Replacements, (*generator).beneath},
	{3, Duplicates, (*generator).duplicate},
	{3, Through, (*generator).through},
	{2, Unusual, (*generator).unusual},
}

func (g *generator) layer() Layer {
	g.here, g.listed, g.out = map[string]byte{}, map[string]bool{}, nil
	if g.r.IntN(3) == 0 {
		g.emit(Entry{Name: "./", Type: tar.TypeDir, Mode: pick(g.r, g.p.dirs) | 0o100})
	}
	total := 0
	for _, o := range operations {
		if g.f.Has(o.needs) {
			total += o.weight
		}
	}
	for range g.r.IntN(22) {
		n := g.r.IntN(total)
		for _, o := range operations {
			if !g.f.Has(o.needs) {
				continue
			}
			if n -= o.weight; n < 0 {
				o.do(g)
				break
			}
		}
	}
	if g.f.Has(Shuffled) && g.r.IntN(3) == 0 {
		g.shuffle()
	}
	g.note(g.out)
	return g.out
}

// shuffle reorders, but keeps links behind their targets.
func (g *generator) shuffle() {
	g.r.Shuffle(len(g.out), func(i, j int) {
		if g.out[i].Type != tar.TypeLink && g.out[j].Type != tar.TypeLink {
			g.out[i], g.out[j] = g.out[j], g.out[i]
		}
	})
	slices.SortStableFunc(g.out, func(a, b Entry) int { return rank(a) - rank(b) })
}

func rank(e Entry) int {
	switch {
	case e.Type == tar.TypeLink:
		return 2
	case strings.HasPrefix(path.Base(e.Name), ".wh."):
		return 0
	}
	return 1
}

// note takes a finished layer into the picture of what lies below the next one.
func (g *generator) note(l Layer) {
	for i := range l {
		e := &l[i]
		name := clean(e.Name)
		base := path.Base(name)
		switch {
		case base == ".wh..wh..opq":
			g.forget(path.Dir(name), false)
			continue
		case strings.HasPrefix(base, ".wh."):
			g.forget(path.Join(path.Dir(name), base[4:]), true)
			continue
		}
		if e.Type != tar.TypeDir {
			g.forget(name, true)
		}
		g.merged[name] = e.Type
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			g.merged[dir] = tar.TypeDir
		}
	}
	delete(g.merged, ".")
}

func (g *generator) forget(name string, itself bool) {
	for k := range g.merged {
		if itself && k == name || name == "." || strings.HasPrefix(k, name+"/") {
			delete(g.merged, k)
		}
	}
}

// emit adds an entry with metadata from the pools, and the parents that it
// needs, listed or not.
func (g *generator) emit(e Entry) {
	name := clean(e.Name)
	if dir := path.Dir(name); name != "." && dir != "." {
		g.parents(dir)
	}
	e.MTime = pick(g.r, g.p.times)
	o := pick(g.r, g.p.owners)
	e.UID, e.GID = o[0], o[1]
	if e.Xattrs == nil {
		e.Xattrs = g.xattrs(e.Type)
	}
	e.GNU = g.f.Has(GNUHeaders) && g.r.IntN(2) == 0
	g.push(e)
}

// push adds an entry as it is.
func (g *generator) push(e Entry) {
	name := clean(e.Name)
	if name != "." {
		g.here[name] = e.Type
	}
	if e.Type == tar.TypeDir {
		g.listed[name] = true
	}
	e.Name = g.spell(e.Name, e.Type)
	g.out = append(g.out, e)
}

// parents lists the directories above an entry, or leaves them implied.
func (g *generator) parents(dir string) {
	if g.f.Has(Implied) && g.r.IntN(2) == 0 {
		for d := dir; d != "."; d = path.Dir(d) {
			if _, ok := g.here[d]; !ok {
				g.here[d] = tar.TypeDir
			}
		}
		return
	}
	if g.here[dir] == tar.TypeDir {
		return
	}
	g.emit(Entry{Name: dir, Type: tar.TypeDir, Mode: pick(g.r, g.p.dirs)})
}

// spell writes a name in one of the ways that tars have.
func (g *generator) spell(name string, kind byte) string {
	if kind == tar.TypeDir && !strings.HasSuffix(name, "/") {
		name += "/"
	}
	if !g.f.Has(Spelling) || name == "./" {
		return name
	}
	switch g.r.IntN(8) {
	case 0, 1:
		return "./" + name
	case 2:
		return "/" + name
	case 3:
		return strings.Replace(name, "/", "//", 1)
	case 4:
		return "x/../" + name
	case 5:
		return "./././" + name
	}
	return name
}

// xattrs draws attributes that an inode of this type can have.
func (g *generator) xattrs(kind byte) map[string]string {
	if len(g.p.xattrs) == 0 || g.r.IntN(2) == 0 {
		return nil
	}
	out := map[string]string{}
	for range 1 + g.r.IntN(3) {
		a := pick(g.r, g.p.xattrs)
		switch {
		case kind == tar.TypeReg || kind == tar.TypeLink:
			if a.name == aclDefault {
				continue
			}
		case kind == tar.TypeDir:
			if a.name == "security.capability" {
				continue
			}
		case strings.HasPrefix(a.name, "user.") || strings.HasPrefix(a.name, "system.") || a.name == "security.capability":
			continue // symlinks, devices and fifos take none of these
		}
		out[a.name] = a.value
	}
	return out
}

// newPath returns a path that may or may not exist.
func (g *generator) newPath() string {
	dir := "."
	if dirs := g.paths(func(t byte) bool { return t == tar.TypeDir }, g.here, g.merged); len(dirs) > 0 && g.r.IntN(4) > 0 {
		dir = pick(g.r, dirs)
	}
	n := 1
	if g.r.IntN(3) == 0 {
		n += g.r.IntN(3)
	}
	if g.f.Has(DeepPaths) && g.r.IntN(6) == 0 {
		n += 12
	}
	for range n {
		name := pick(g.r, g.p.names)
		// The oracle extracts by path, below a prefix of its own.
		if len(dir)+len(name) > 3600 {
			break
		}
		dir = path.Join(dir, name)
	}
	if dir == "." || g.blocked(dir) {
		return pick(g.r, g.p.names)
	}
	return dir
}

// blocked reports whether something that is no directory lies on the way.
func (g *generator) blocked(name string) bool {
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		if t, ok := g.here[d]; ok && t != tar.TypeDir {
			return true
		}
	}
	return false
}

// paths returns the paths of the given kinds, in a fixed order.
func (g *generator) paths(want func(byte) bool, from ...map[string]byte) []string {
	set := map[string]bool{}
	for _, m := range from {
		for name, t := range m {
			if want(t) && !g.blocked(name) {
				set[name] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func clean(name string) string {
	name = path.Clean("/" + name)[1:]
	if name == "" {
		return "."
	}
	return name
}
