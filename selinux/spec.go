package selinux

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	"github.com/dlclark/regexp2"
)

// none is the context of paths that the policy leaves alone.
const none = "<<none>>"

// meta are the bytes that make a rule's pattern more than a path.
const meta = ".^$?*+|[({"

const sIFMT = 0o170000

// types are the file types that a rule can ask for, as st_mode has them.
var types = map[string]uint32{
	"--": 0o100000, "-d": 0o040000, "-l": 0o120000, "-c": 0o020000, "-b": 0o060000, "-p": 0o010000, "-s": 0o140000,
}

// A spec is one rule: a pattern, the file type it is for, and the context it gives.
type spec struct {
	pattern string
	mode    uint32
	context string
	file    string
	line    int

	wild   bool   // whether the pattern has an unescaped meta character
	stem   string // the first component, if it has no meta character; matched apart, the rest by the expression
	prefix string // what every match begins with, stem included: tried before the expression
	exact  bool   // whether prefix is all there is to match
	re     *regexp.Regexp
	full   *regexp2.Regexp // where the expression needs what RE2 leaves out
}

// backtracking bounds how long one match of an expression with look-around or back-references may take.
const backtracking = time.Second

// parseSpec reads a line of a file_contexts file: pattern, perhaps a type, context.
func parseSpec(text string) (spec, error) {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return spec{}, fmt.Errorf("byte %#x is not ASCII", text[i])
		}
	}
	fields := strings.Fields(text)
	s := spec{}
	switch len(fields) {
	case 2:
		s.context = fields[1]
	case 3:
		mode, ok := types[fields[1]]
		if !ok {
			return s, fmt.Errorf("unknown file type %q", fields[1])
		}
		s.mode, s.context = mode, fields[2]
	default:
		return s, fmt.Errorf("%d fields where a pattern, perhaps a file type, and a context are expected", len(fields))
	}
	s.pattern = fields[0]
	if s.context != none {
		if err := checkContext(s.context); err != nil {
			return s, err
		}
	}
	s.wild = hasMeta(s.pattern)
	s.stem = stemOfPattern(s.pattern)
	return s, nil
}

// checkContext says what is wrong with the form of a context: user:role:type, perhaps with a range behind it.
func checkContext(context string) error {
	parts := strings.SplitN(context, ":", 4)
	if len(parts) < 3 {
		return fmt.Errorf("%q is not a context: user:role:type[:range] expected", context)
	}
	for _, part := range parts {
		if part == "" {
			return fmt.Errorf("%q is not a context: an empty part", context)
		}
	}
	return nil
}

func hasMeta(pattern string) bool {
	for i := 0; i < len(pattern); i++ {
		if pattern[i] == '\\' {
			i++
		} else if strings.IndexByte(meta, pattern[i]) >= 0 {
			return true
		}
	}
	return false
}

// stemOfPattern returns the pattern's first component with its slash, if another slash follows it and no meta character
// is in it, escaped or not.
func stemOfPattern(pattern string) string {
	stem := stemOfPath(pattern)
	if strings.ContainsAny(stem, meta) {
		return ""
	}
	return stem
}

func stemOfPath(path string) string {
	if path == "" {
		return ""
	}
	if i := strings.IndexByte(path[1:], '/'); i >= 0 {
		return path[:i+1]
	}
	return ""
}

// compile prepares the expression. What PCRE calls the end of the subject is also before a last newline.
func (s *spec) compile() error {
	rest := s.pattern[len(s.stem):]
	if !s.wild && !strings.ContainsAny(rest, `\])}`) {
		s.prefix, s.exact = s.pattern, true
		return nil
	}
	// Anchors go around the pattern as libselinux puts them there: without a group.
	tree, err := syntax.Parse("^"+rest+`\n?\z`, syntax.Perl|syntax.DotNL)
	if err == nil {
		s.prefix = s.stem + literalPrefix(tree.Simplify())
		s.re, err = regexp.Compile("(?s)^" + rest + `\n?\z`)
		return err
	}
	full, fullErr := regexp2.Compile("^"+rest+"$", regexp2.Singleline)
	if fullErr != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	full.MatchTimeout = backtracking
	s.full, s.prefix = full, s.stem
	return nil
}

// literalPrefix returns what a match of an anchored expression surely begins with.
func literalPrefix(tree *syntax.Regexp) string {
	if tree.Op != syntax.OpConcat || tree.Sub[0].Op != syntax.OpBeginText {
		return ""
	}
	var b strings.Builder
	for _, sub := range tree.Sub[1:] {
		if sub.Op != syntax.OpLiteral || sub.Flags&syntax.FoldCase != 0 {
			break
		}
		b.WriteString(string(sub.Rune))
	}
	return b.String()
}

// matches says whether the rule is for the path. The caller has compared the stems.
func (s *spec) matches(path string, mode uint32) bool {
	if mode != 0 && s.mode != 0 && mode != s.mode || !strings.HasPrefix(path, s.prefix) {
		return false
	}
	switch rest := path[len(s.stem):]; {
	case s.exact:
		return len(path) == len(s.prefix) || path[len(s.prefix):] == "\n"
	case s.re != nil:
		return s.re.MatchString(rest)
	default:
		ok, err := s.full.MatchString(rest)
		return ok && err == nil
	}
}
