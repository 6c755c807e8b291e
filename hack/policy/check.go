package policy

import (
	"fmt"
	"go/ast"
	"slices"
	"strconv"
	"strings"
)

// Check returns every breach of the rules in the packages, sorted.
func Check(packages []*Package) []string {
	var c checker
	for _, p := range packages {
		c.names(p)
		c.imports(p)
		c.methods(p)
		for _, f := range p.Files {
			c.sizes(f)
			c.comments(f)
		}
	}
	slices.Sort(c.found)
	return c.found
}

type checker struct{ found []string }

func (c *checker) breach(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// roomOf returns the rights of the package in dir.
func roomOf(dir string) (room, bool) {
	for _, r := range rooms {
		if dir == r.dir || below[r.dir] && strings.HasPrefix(dir, r.dir+"/") {
			return r, true
		}
	}
	return room{}, false
}

// names checks the package's name and comment.
func (c *checker) names(p *Package) {
	if bannedNames[p.Name] || bannedNames[p.Dir[strings.LastIndexByte(p.Dir, '/')+1:]] {
		c.breach("%s: the name of package %s says nothing", p.Dir, p.Name)
	}
	documented := slices.ContainsFunc(p.Files, func(f *File) bool { return f.AST.Doc.Text() != "" })
	if !documented {
		c.breach("%s: package %s has no comment", p.Dir, p.Name)
	}
}

// imports checks that the package imports only what its room may.
func (c *checker) imports(p *Package) {
	r, known := roomOf(p.Dir)
	if !known {
		c.breach("%s: no rule says what this package may import", p.Dir)
		return
	}
	for _, f := range p.Files {
		for _, spec := range f.AST.Imports {
			path, _ := strconv.Unquote(spec.Path.Value)
			switch {
			case path == "C":
				c.breach("%s:%d: cgo", f.Path, f.line(spec.Pos()))
			case f.Test:
			case quiet[p.Dir] && unquiet[path], !r.allows(path):
				c.breach("%s:%d: %s may not import %s", f.Path, f.line(spec.Pos()), p.Dir, path)
			}
		}
	}
}

// allows reports whether a room may import a path.
func (r *room) allows(path string) bool {
	if own, ok := strings.CutPrefix(path, Module+"/"); ok {
		return slices.ContainsFunc(r.rooms, func(dir string) bool { return dir == "" || dir == own || inside(own, dir) })
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return true // the standard library
	}
	return slices.ContainsFunc(r.modules, func(m string) bool { return m == "" || path == m || strings.HasPrefix(path, m+"/") })
}

// inside reports whether dir is below a room that passes its rights on.
func inside(dir, of string) bool { return below[of] && strings.HasPrefix(dir, of+"/") }

// sizes checks the budgets of a file and of its functions.
func (c *checker) sizes(f *File) {
	most := maxFileLines
	if f.Test {
		most = maxTestFileLines
	}
	if f.Lines > most {
		c.breach("%s: %d lines, at most %d", f.Path, f.Lines, most)
	}
	if f.Test {
		return
	}
	for _, d := range f.AST.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > maxFuncLines {
				c.breach("%s:%d: %s has %d lines, at most %d", f.Path, f.line(fn.Pos()), fn.Name.Name, n, maxFuncLines)
			}
		}
	}
}

// methods counts the exported methods of each type.
func (c *checker) methods(p *Package) {
	count := map[string]int{}
	for _, f := range p.Files {
		for _, d := range f.AST.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && !f.Test && fn.Recv != nil && fn.Name.IsExported() {
				count[receiver(fn)]++
			}
		}
	}
	for name, n := range count {
		if full := p.Name + "." + name; n > maxMethods && !manyMethods[full] {
			c.breach("%s: %s has %d exported methods, at most %d", p.Dir, full, n, maxMethods)
		}
	}
}

// receiver returns the name of the type that a method is of.
func receiver(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

// comments checks that what a file exports is documented.
func (c *checker) comments(f *File) {
	if f.Test {
		return
	}
	for _, d := range f.AST.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if needsComment(d) && d.Doc.Text() == "" {
				c.breach("%s:%d: %s has no comment", f.Path, f.line(d.Pos()), d.Name.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				c.spec(f, d, s)
			}
		}
	}
}

// needsComment reports whether a function or method is to be documented: it is
// exported, and not one whose name says it all.
func needsComment(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return fn.Name.IsExported()
	}
	return fn.Name.IsExported() && ast.IsExported(receiver(fn)) && !plainMethods[fn.Name.Name]
}

// spec checks a type, or names of constants or variables: each needs a comment of
// its own, before or behind it, or its group has one.
func (c *checker) spec(f *File, d *ast.GenDecl, s ast.Spec) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Name.IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
			c.breach("%s:%d: %s has no comment", f.Path, f.line(s.Pos()), s.Name.Name)
		}
	case *ast.ValueSpec:
		for _, name := range s.Names {
			if name.IsExported() && d.Doc.Text()+s.Doc.Text()+s.Comment.Text() == "" {
				c.breach("%s:%d: %s has no comment", f.Path, f.line(s.Pos()), name.Name)
			}
		}
	}
}
