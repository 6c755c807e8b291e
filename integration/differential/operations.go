package differential

import (
	"archive/tar"
	"path"
	"strings"
)

func (g *generator) file() {
	name := g.newPath()
	if g.here[name] == tar.TypeDir && (!g.f.Has(Unusual) || g.listed[name]) {
		return // replacing a listed directory in its own layer is refused
	}
	if _, ok := g.here[name]; ok && !g.f.Has(Duplicates) && g.here[name] != 'w' {
		return
	}
	g.drop(name)
	g.emit(Entry{Name: name, Type: tar.TypeReg, Mode: pick(g.r, g.p.files), Body: pick(g.r, g.p.bodies)})
}

// drop forgets what an entry of another kind removes.
func (g *generator) drop(name string) {
	for k := range g.here {
		if k == name || strings.HasPrefix(k, name+"/") {
			delete(g.here, k)
		}
	}
}

func (g *generator) directory() {
	name := g.newPath()
	if t, ok := g.here[name]; ok && t != tar.TypeDir && !g.f.Has(Duplicates) {
		return
	}
	g.emit(Entry{Name: name, Type: tar.TypeDir, Mode: pick(g.r, g.p.dirs)})
}

// touchDirectory lists a directory of the layers below with other metadata, and
// nothing in it.
func (g *generator) touchDirectory() {
	dirs := g.paths(func(t byte) bool { return t == tar.TypeDir }, g.merged)
	if len(dirs) == 0 {
		return
	}
	name := pick(g.r, dirs)
	if t, ok := g.here[name]; ok && t != tar.TypeDir {
		return
	}
	g.emit(Entry{Name: name, Type: tar.TypeDir, Mode: pick(g.r, g.p.dirs)})
}

func (g *generator) symlink() {
	name := g.newPath()
	if g.here[name] == tar.TypeDir {
		return
	}
	targets := []string{
		"target", "/etc/passwd", "../..", "/", ".", "\xff\xfe", "a/\xe4", strings.Repeat("t/", 40) + "x", name, "new\nline",
	}
	if g.f.Has(OddNames) {
		targets = append(targets, strings.Repeat("l", 4000), "\x80", strings.Repeat("\xff", 300))
	}
	if dirs := g.paths(func(t byte) bool { return t == tar.TypeDir }, g.here); len(dirs) > 0 {
		targets = append(targets, "/"+pick(g.r, dirs), pick(g.r, dirs))
	}
	if g.f.Has(EqualFiles) {
		targets = targets[:3]
	}
	g.emit(Entry{Name: name, Type: tar.TypeSymlink, Mode: 0o777, Link: pick(g.r, targets)})
}

func (g *generator) special() {
	name := g.newPath()
	if g.here[name] == tar.TypeDir {
		return
	}
	e := Entry{Name: name, Mode: pick(g.r, g.p.files)}
	switch g.r.IntN(3) {
	case 0:
		e.Type, e.Major, e.Minor = tar.TypeChar, 1, int64(3+g.r.IntN(2))
	case 1:
		e.Type, e.Major, e.Minor = tar.TypeBlock, pick(g.r, []int64{0, 7, 259, 4095}), pick(g.r, []int64{0, 1, 255, 1048575})
	case 2:
		e.Type = tar.TypeFifo
	}
	g.emit(e)
}

func (g *generator) zeroDevice() {
	name := g.newPath()
	if g.here[name] == tar.TypeDir {
		return
	}
	g.emit(Entry{Name: name, Type: tar.TypeChar, Mode: pick(g.r, g.p.files)})
}

// hardlink links an earlier entry of this layer, with the target's metadata, as
// archivers write it, or with others.
func (g *generator) hardlink() {
	target, ok := g.linkable()
	if !ok {
		return
	}
	name := g.newPath()
	if g.here[name] == tar.TypeDir || name == clean(target.Name) {
		return
	}
	g.link(target, name)
}

func (g *generator) link(target Entry, name string) {
	if dir := path.Dir(name); dir != "." {
		g.parents(dir)
	}
	e := target
	e.Type, e.Link, e.Name, e.Body = tar.TypeLink, clean(target.Name), name, nil
	e.Major, e.Minor = 0, 0
	if g.f.Has(OddLinks) && g.r.IntN(3) == 0 {
		e.MTime = pick(g.r, g.p.times)
		e.Mode = pick(g.r, g.p.files)
		o := pick(g.r, g.p.owners)
		e.UID, e.GID = o[0], o[1]
		if target.Type == tar.TypeReg {
			e.Xattrs = g.xattrs(tar.TypeReg)
		}
	}
	if g.f.Has(Spelling) && g.r.IntN(3) == 0 {
		e.Link = "./" + e.Link
	}
	g.drop(name)
	g.push(e)
}

// linkable returns an entry of this layer that still is what it was.
func (g *generator) linkable() (Entry, bool) {
	for range 8 {
		if len(g.out) == 0 {
			break
		}
		e := pick(g.r, g.out)
		name := clean(e.Name)
		base := path.Base(name)
		if e.Type == tar.TypeDir || e.Type == tar.TypeLink || strings.HasPrefix(base, ".wh.") || g.here[name] != e.Type || g.blocked(name) {
			continue
		}
		if e.Type == tar.TypeChar && e.Major == 0 && e.Minor == 0 {
			continue
		}
		return e, true
	}
	return Entry{}, false
}

func (g *generator) farm() {
	e := Entry{Name: path.Join(pick(g.r, []string{"bin", "usr/bin", "sbin", "etc"}), "busybox"), Type: tar.TypeReg, Mode: 0o755, Body: pick(g.r, g.p.bodies)}
	dir := path.Dir(e.Name)
	if _, ok := g.here[e.Name]; ok || g.blocked(e.Name) || g.here[dir] != tar.TypeDir && g.here[dir] != 0 {
		return
	}
	g.emit(e)
	target := g.out[len(g.out)-1]
	for i := range 3 + g.r.IntN(20) {
		name := path.Join(dir, "applet"+string(rune('a'+i)))
		if g.here[name] == 0 {
			g.link(target, name)
		}
	}
}

// whiteout removes a name of the layers below, or one that does not exist; and
// sometimes makes it anew in the same layer.
func (g *generator) whiteout() {
	name := ""
	if below := g.paths(func(byte) bool { return true }, g.merged); len(below) > 0 && g.r.IntN(4) > 0 {
		name = pick(g.r, below)
	} else {
		name = g.newPath()
	}
	if _, ok := g.here[name]; ok || g.blocked(name) || len(path.Base(name)) > 251 {
		return
	}
	dir := path.Dir(name)
	if dir != "." {
		g.parents(dir)
	}
	g.push(Entry{
		Name: path.Join(dir, ".wh."+path.Base(name)), Type: tar.TypeReg, Mode: pick(g.r, g.p.files), MTime: pick(g.r, g.p.times),
	})
	delete(g.here, path.Join(dir, ".wh."+path.Base(name)))
	g.here[name] = 'w'
	if g.r.IntN(3) > 0 {
		return
	}
	delete(g.here, name)
	switch g.r.IntN(3) {
	case 0:
		g.emit(Entry{Name: name, Type: tar.TypeDir, Mode: pick(g.r, g.p.dirs)})
	case 1:
		g.emit(Entry{Name: name, Type: tar.TypeReg, Mode: pick(g.r, g.p.files), Body: pick(g.r, g.p.bodies)})
	case 2:
		g.emit(Entry{Name: name, Type: tar.TypeSymlink, Mode: 0o777, Link: "made anew"})
	}
}

func (g *generator) opaque() {
	dir := "."
	if dirs := g.paths(func(t byte) bool { return t == tar.TypeDir }, g.here, g.merged); len(dirs) > 0 && g.r.IntN(5) > 0 {
		dir = pick(g.r, dirs)
	}
	if t, ok := g.here[dir]; ok && t != tar.TypeDir {
		return
	}
	if dir != "." {
		g.parents(dir)
	}
	g.push(Entry{Name: path.Join(dir, ".wh..wh..opq"), Type: tar.TypeReg, Mode: pick(g.r, g.p.files), MTime: pick(g.r, g.p.times)})
	delete(g.here, path.Join(dir, ".wh..wh..opq"))
}

// replace puts an entry of another kind where the layers below have something:
// often where they have done so before.
func (g *generator) replace() {
	below := g.paths(func(byte) bool { return true }, g.merged)
	if len(below) == 0 {
		return
	}
	name := pick(g.r, below)
	if len(g.turned) > 0 && g.r.IntN(2) == 0 {
		name = pick(g.r, g.turned)
	}
	g.turned = append(g.turned, name)
	if _, ok := g.here[name]; ok || g.blocked(name) {
		return
	}
	e := Entry{Name: name, Mode: 0o755}
	switch g.r.IntN(4) {
	case 0:
		e.Type = tar.TypeDir
	case 1:
		e.Type, e.Body = tar.TypeReg, pick(g.r, g.p.bodies)
	case 2:
		e.Type, e.Link = tar.TypeSymlink, pick(g.r, below)
	case 3:
		e.Type, e.Link = tar.TypeSymlink, "/"+pick(g.r, below)
	}
	g.emit(e)
}

// beneath puts a file below what is no directory in the layers below.
func (g *generator) beneath() {
	others := g.paths(func(t byte) bool { return t != tar.TypeDir }, g.merged)
	if len(others) == 0 {
		return
	}
	dir := pick(g.r, others)
	if t, ok := g.here[dir]; ok && t != tar.TypeDir || g.blocked(dir) || len(dir) > 3000 {
		return
	}
	g.turned = append(g.turned, dir)
	g.emit(Entry{Name: path.Join(dir, pick(g.r, plainNames)), Type: tar.TypeReg, Mode: pick(g.r, g.p.files), Body: pick(g.r, g.p.bodies)})
}

// duplicate gives an entry of this layer once more, changed or not.
func (g *generator) duplicate() {
	if len(g.out) == 0 {
		return
	}
	e := pick(g.r, g.out)
	name := clean(e.Name)
	if strings.HasPrefix(path.Base(name), ".wh.") || e.Type == tar.TypeLink || g.here[name] != e.Type || g.blocked(name) || name == "." {
		return
	}
	switch g.r.IntN(3) {
	case 0:
	case 1:
		e.MTime = pick(g.r, g.p.times)
		e.Xattrs = g.xattrs(e.Type)
	case 2:
		if e.Type != tar.TypeDir {
			e = Entry{Name: name, Type: tar.TypeReg, Mode: pick(g.r, g.p.files), Body: pick(g.r, g.p.bodies), MTime: e.MTime}
		}
	}
	g.push(e)
}

// through adds a file below a symlink to a directory of this layer.
func (g *generator) through() {
	dirs := g.paths(func(t byte) bool { return t == tar.TypeDir }, g.here)
	if len(dirs) == 0 {
		return
	}
	dir := pick(g.r, dirs)
	link := pick(g.r, g.p.names) + ".link"
	if len(link) > 255 || g.here[link] != 0 {
		return
	}
	target := pick(g.r, []string{dir, "/" + dir, "./" + dir, "../../" + dir})
	g.emit(Entry{Name: link, Type: tar.TypeSymlink, Mode: 0o777, Link: target})
	sub := pick(g.r, g.p.names) + "~"
	if len(sub) > 255 {
		return
	}
	g.here[path.Join(dir, sub)] = tar.TypeReg
	g.push(Entry{
		Name: link + "/" + sub, Type: tar.TypeReg, Mode: pick(g.r, g.p.files), Body: pick(g.r, g.p.bodies), MTime: pick(g.r, g.p.times),
		Xattrs: g.xattrs(tar.TypeReg),
	})
}

// unusual is what the oracle refuses, or what only archivers of the past wrote.
func (g *generator) unusual() {
	e := Entry{Type: tar.TypeReg, Mode: 0o644, MTime: pick(g.r, g.p.times)}
	name := g.newPath()
	switch g.r.IntN(8) {
	case 0:
		e.Name = ".wh..wh.plnk/1234"
	case 1:
		e.Name = ".wh..wh.aufs"
	case 2:
		e.Name = path.Join(path.Dir(name), ".wh.")
	case 3:
		e.Name = path.Join(path.Dir(name), ".wh...")
	case 4:
		e.Name = "../outside"
	case 5:
		e.Name, e.Type, e.Link = name, tar.TypeLink, "../outside"
	case 6:
		e.Name, e.Type, e.Link = name, tar.TypeLink, "no/such/file"
	case 7:
		e.Name, e.Xattrs = name, map[string]string{"unknown.space": "x"}
	}
	g.push(e)
}
