package differential

import (
	"slices"
	"strings"
)

// Shrink drops layers and entries as long as a difference of the same kind
// remains, and returns the smallest chain found. It may run the chain some
// hundred times.
func Shrink(p *Pair, seed uint64, c Chain, d Difference) Chain {
	budget := 300
	shows := func(c Chain) bool {
		if budget--; budget < 0 {
			return false
		}
		list, err := p.Run(seed, c)
		return err == nil && slices.ContainsFunc(list, func(x Difference) bool { return alike(x, d) })
	}
	for changed := true; changed; {
		changed = false
		for i := len(c) - 1; i >= 0; i-- {
			if smaller := slices.Delete(slices.Clone(c), i, i+1); shows(smaller) {
				c, changed = smaller, true
			}
		}
		for i := range c {
			for n := len(c[i]) / 2; n > 0; n /= 2 {
				for at := 0; at+n <= len(c[i]); {
					smaller := slices.Clone(c)
					smaller[i] = slices.Delete(slices.Clone(c[i]), at, at+n)
					if shows(smaller) {
						c, changed = smaller, true
					} else {
						at += n
					}
				}
			}
		}
		if budget < 0 {
			break
		}
	}
	return c
}

// alike reports whether two differences have one cause, most likely.
func alike(a, b Difference) bool {
	first := func(s string) string { word, _, _ := strings.Cut(s, " "); return word }
	return a.What == b.What && first(a.Where) == first(b.Where) && (a.What != "outcome" || lastWord(a.Got) == lastWord(b.Got))
}

func lastWord(s string) string { return s[strings.LastIndexByte(s, ':')+1:] }
