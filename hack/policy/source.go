package policy

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Package is the parsed sources of a directory. A package's own tests, of the
// external kind too, belong to it.
type Package struct {
	Dir   string // below the root, with slashes
	Name  string
	Files []*File
}

// A File is one parsed source.
type File struct {
	Path  string // below the root, with slashes
	Test  bool
	Lines int
	Fset  *token.FileSet
	AST   *ast.File
}

// line returns the line that pos is on.
func (f *File) line(pos token.Pos) int { return f.Fset.Position(pos).Line }

// Load parses all Go sources below root, whatever they are built for, in nested
// modules too. It leaves out what the go command leaves out (testdata, names that
// begin with a dot or an underscore) and the directory that programs are built in.
func Load(root string) ([]*Package, error) {
	found := map[string]*Package{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case path == root:
		case name[0] == '.' || name[0] == '_':
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
			if name == "testdata" || name == "vendor" || path == filepath.Join(root, "build") {
				return fs.SkipDir
			}
		case strings.HasSuffix(name, ".go"):
			return load(found, root, path)
		}
		return nil
	})
	var all []*Package
	for _, p := range found {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *Package) int { return strings.Compare(a.Dir, b.Dir) })
	return all, err
}

func load(found map[string]*Package, root, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	rel = filepath.ToSlash(rel)
	f := &File{Path: rel, Test: strings.HasSuffix(rel, "_test.go"), Lines: bytes.Count(text, []byte("\n")), Fset: token.NewFileSet()}
	if f.AST, err = parser.ParseFile(f.Fset, path, text, parser.ParseComments|parser.SkipObjectResolution); err != nil {
		return fmt.Errorf("parse %s: %w", rel, err)
	}
	dir := filepath.ToSlash(filepath.Dir(rel))
	p := found[dir]
	if p == nil {
		p = &Package{Dir: dir}
		found[dir] = p
	}
	p.Files = append(p.Files, f)
	if name := f.AST.Name.Name; !f.Test || p.Name == "" {
		p.Name = strings.TrimSuffix(name, "_test")
	}
	return nil
}
