package selinux

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A Policy is the file contexts of one SELinux policy: which label it gives a path. It reads and decides as libselinux
// 3.4 does (selabel_open and selabel_lookup with the file backend), which is what `matchpathcon` prints.
type Policy struct {
	specs   []spec // with wildcards first, then exact ones; the last that matches decides
	stems   map[string][]int
	general []int // specs without a stem
	local   []substitution
	dist    []substitution
}

// maxFile bounds each file of a policy, in bytes. The largest that distributions ship are under two megabytes.
const maxFile = 16 << 20

// A PolicyError says what is wrong in a policy, and where.
type PolicyError struct {
	File   string
	Line   int // counted from one; zero if it is the file as a whole
	Reason string
}

func (e *PolicyError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason)
}

// An opener opens the files of a policy by their absolute paths.
type opener func(path string) (fs.File, error)

// LoadPolicy reads a policy directory such as /etc/selinux/default: contexts/files/file_contexts, which must be there,
// and beside it .homedirs, .local, .subs and .subs_dist.
func LoadPolicy(dir string) (*Policy, error) {
	return ReadPolicy(dir, func(path string) (fs.File, error) { return os.Open(path) })
}

// ReadPolicy is LoadPolicy with files from elsewhere, an image say.
func ReadPolicy(dir string, open func(path string) (fs.File, error)) (*Policy, error) {
	p := &Policy{stems: map[string][]int{}}
	base := filepath.Join(dir, "contexts/files/file_contexts")
	for _, suffix := range []string{"", ".homedirs", ".local"} {
		err := opener(open).eachLine(base+suffix, func(line int, text string) error {
			s, err := parseSpec(text)
			if err != nil {
				return &PolicyError{base + suffix, line, err.Error()}
			}
			s.file, s.line = base+suffix, line
			p.specs = append(p.specs, s)
			return nil
		})
		if errors.Is(err, fs.ErrNotExist) && suffix != "" {
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	var err error
	if p.local, err = loadSubstitutions(open, base+".subs"); err != nil {
		return nil, err
	}
	if p.dist, err = loadSubstitutions(open, base+".subs_dist"); err != nil {
		return nil, err
	}
	return p, p.arrange()
}

// arrange puts the exact specs behind the others, keeping the order otherwise, and indexes both by their stem.
func (p *Policy) arrange() error {
	sorted := make([]spec, 0, len(p.specs))
	for _, wild := range []bool{true, false} {
		for _, s := range p.specs {
			if s.wild == wild {
				sorted = append(sorted, s)
			}
		}
	}
	p.specs = sorted
	for i := range p.specs {
		s := &p.specs[i]
		if err := s.compile(); err != nil {
			return &PolicyError{s.file, s.line, err.Error()}
		}
		if s.stem == "" {
			p.general = append(p.general, i)
		} else {
			p.stems[s.stem] = append(p.stems[s.stem], i)
		}
	}
	return nil
}

// Label returns the label of path, which is absolute and as the policy's own root sees it. Mode is the file's st_mode;
// if its type is zero, rules for any type apply. It returns false where the policy has no rule, or says <<none>>.
func (p *Policy) Label(path string, mode uint32) (string, bool) {
	path = p.substitute(squeeze(path))
	stem := stemOfPath(path)
	general, own := p.general, p.stems[stem]
	if stem == "" {
		own = nil
	}
	for len(general)+len(own) > 0 {
		from := &general
		if len(general) == 0 || len(own) > 0 && own[len(own)-1] > general[len(general)-1] {
			from = &own
		}
		last := len(*from) - 1
		s := &p.specs[(*from)[last]]
		*from = (*from)[:last]
		if s.matches(path, mode&sIFMT) {
			return s.context, s.context != none
		}
	}
	return "", false
}

// squeeze removes repeated slashes.
func squeeze(path string) string {
	if !strings.Contains(path, "//") {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}

// eachLine calls fn for each line of the file that is neither empty nor a comment.
func (open opener) eachLine(file string, fn func(line int, text string) error) error {
	f, err := open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &PolicyError{file, 0, "not a regular file"}
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	n, size := 0, 0
	for lines.Scan() {
		n++
		if size += len(lines.Bytes()) + 1; size > maxFile {
			return &PolicyError{file, n, fmt.Sprintf("the file is longer than a policy's can be, %d bytes", maxFile)}
		}
		text := strings.TrimSpace(lines.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if err := fn(n, text); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return &PolicyError{file, n + 1, err.Error()}
	}
	return nil
}
