package pins

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"
)

// A LayerRecord is what matters here of a layer in containers/storage's lists.
type LayerRecord struct {
	ID     string `json:"id"`
	Parent string `json:"parent"`
	DiffID string `json:"diff-digest"`
}

// layerLists are the files in which containers/storage lists the layers of a directory.
var layerLists = []string{"layers.json", "volatile-layers.json"}

// LayerRecords reads the lists of a directory of containers/storage, without its lock: each of them is replaced as a whole. They are plain if
// containers/storage would find the same and have nothing to mend; else let it read them.
func LayerRecords(dir string) (all []LayerRecord, plain bool, err error) {
	plain = true
	for _, name := range layerLists {
		list, is, err := readLayers(filepath.Join(dir, name))
		if err != nil {
			return nil, false, err
		}
		all, plain = append(all, list...), plain && is
	}
	return all, plain, nil
}

// readLayers reads one list of layers. One that does not exist has none; an empty file is what is left of one, and may have had some.
func readLayers(path string) (list []LayerRecord, plain bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	s := recordScanner{text: unsafe.String(unsafe.SliceData(text), len(text))}
	if list = s.list(); !s.odd {
		return list, true, nil
	}
	list = nil
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, err)
	}
	return list, false, nil
}

// A recordScanner reads a list of layers as containers/storage writes it, in a tenth of the time that a decoder of any JSON takes: a list can
// have tens of thousands. Everything else is odd, and layers that are not complete are: it is for others to read. Strings are
// cut from the text.
type recordScanner struct {
	text string
	at   int
	odd  bool
}

func (s *recordScanner) list() []LayerRecord {
	const room = 256 // a record is hardly shorter
	list := make([]LayerRecord, 0, len(s.text)/room+1)
	s.expect('[')
	for more := !s.take(']'); more && !s.odd; {
		list = append(list, s.layer())
		if more = s.take(','); !more {
			s.expect(']')
		}
	}
	s.space()
	s.odd = s.odd || s.at != len(s.text)
	return list
}

func (s *recordScanner) layer() (l LayerRecord) {
	s.expect('{')
	for more := !s.take('}'); more && !s.odd; {
		key := s.word()
		s.expect(':')
		from := s.at
		switch key {
		case "id":
			l.ID = s.word()
		case "parent":
			l.Parent = s.word()
		case "diff-digest":
			l.DiffID = s.word()
		case "flags":
			s.skip()
			s.odd = s.odd || strings.Contains(s.text[from:s.at], "incomplete")
		default:
			s.skip()
			s.odd = s.odd || strings.ContainsFunc(key, func(c rune) bool { return c != '-' && (c < 'a' || c > 'z') }) // decoders do not mind case
		}
		if more = s.take(','); !more {
			s.expect('}')
		}
	}
	s.odd = s.odd || l.ID == ""
	return l
}

func (s *recordScanner) space() {
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\n' || s.text[s.at] == '\t' || s.text[s.at] == '\r') {
		s.at++
	}
}

// take goes past a character if it is the next.
func (s *recordScanner) take(c byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *recordScanner) expect(c byte) { s.odd = !s.take(c) || s.odd }

// word reads a string in which nothing is escaped.
func (s *recordScanner) word() string {
	if s.expect('"'); s.odd {
		return ""
	}
	end := strings.IndexByte(s.text[s.at:], '"')
	if end < 0 {
		s.odd = true
		return ""
	}
	word := s.text[s.at : s.at+end]
	for i := range len(word) {
		s.odd = s.odd || word[i] < ' ' || word[i] > '~' || word[i] == '\\'
	}
	s.at += end + 1
	return word
}

// skip goes past a value.
func (s *recordScanner) skip() {
	for depth := 0; !s.odd; {
		s.space()
		rest := s.text[s.at:]
		if rest == "" {
			s.odd = true
			return
		}
		switch rest[0] {
		case '"':
			s.skipString()
		case '{', '[':
			depth++
			s.at++
		case '}', ']', ',', ':':
			s.odd = s.odd || depth == 0
			if rest[0] == '}' || rest[0] == ']' {
				depth--
			}
			s.at++
		default:
			n := scalar(rest)
			s.odd = n == 0
			s.at += n
		}
		if depth == 0 {
			return
		}
	}
}

// scalar is how long the number, true, false or null is with which a text begins, 0 if it begins with something else.
func scalar(text string) int {
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(text, word) {
			return len(word)
		}
	}
	n := 0
	for n < len(text) && (text[n] >= '0' && text[n] <= '9' || text[n] == '-' || text[n] == '+' || text[n] == '.' || text[n] == 'e' || text[n] == 'E') {
		n++
	}
	return n
}

// skipString goes past a string: to the next quote that is not escaped.
func (s *recordScanner) skipString() {
	for s.at++; ; {
		n := strings.IndexByte(s.text[s.at:], '"')
		if n < 0 {
			s.odd = true
			return
		}
		inside := s.text[s.at : s.at+n]
		s.at += n + 1
		if (len(inside)-len(strings.TrimRight(inside, `\`)))%2 == 0 {
			return
		}
	}
}
