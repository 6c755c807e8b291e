package selinux

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// A substitution makes one path stand for another: what is below from is labelled as if it were below to.
type substitution struct {
	from, to string
	line     int
}

// loadSubstitutions reads a .subs or .subs_dist file; none is fine. The last line comes first, as it is tried first.
func loadSubstitutions(open opener, file string) ([]substitution, error) {
	var subs []substitution
	err := open.eachLine(file, func(line int, text string) error {
		fields := strings.Fields(text)
		if len(fields) < 2 {
			return &PolicyError{file, line, "a path and what it stands for are expected"}
		}
		subs = append(subs, substitution{fields[0], fields[1], line})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Reverse(subs)
	return subs, cycle(file, subs)
}

// cycle finds paths that stand for each other. libselinux substitutes once and would not notice; somebody wrote what
// they did not mean.
func cycle(file string, subs []substitution) error {
	for _, first := range subs {
		at := first.to
		for range subs {
			i := slices.IndexFunc(subs, func(s substitution) bool { return s.from == at })
			if i < 0 {
				break
			}
			if at = subs[i].to; at == first.to {
				return &PolicyError{file, first.line, fmt.Sprintf("%s stands for itself through %s", first.to, subs[i].from)}
			}
		}
	}
	return nil
}

// substitute applies the local substitutions, and then those of the distribution to what came of it.
func (p *Policy) substitute(path string) string {
	return apply(p.dist, apply(p.local, path))
}

func apply(subs []substitution, path string) string {
	for _, s := range subs {
		rest, ok := strings.CutPrefix(path, s.from)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if s.to == "/" {
			rest = strings.TrimPrefix(rest, "/")
		}
		return s.to + rest
	}
	return path
}
