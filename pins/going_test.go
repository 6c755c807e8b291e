package pins

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.podman.io/storage"
)

// What falls away is told from chains that are followed one by one.
func TestWithoutFollowsEveryChain(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	for range 300 {
		var layers []LayerRecord
		parents := map[string]string{}
		for i := range 1 + random.IntN(40) {
			l := LayerRecord{ID: fmt.Sprint("l", i)}
			if i > 0 && random.IntN(5) > 0 {
				l.Parent = layers[random.IntN(i)].ID
			}
			parents[l.ID] = l.Parent
			layers = append(layers, l)
		}
		random.Shuffle(len(layers), func(i, j int) { layers[i], layers[j] = layers[j], layers[i] })
		f := newForest(layers)
		tops := make([]string, 1+random.IntN(12))
		for i := range tops {
			tops[i] = layers[random.IntN(len(layers))].ID
			f.need(tops[i])
		}
		for range 4 { // what one question leaves must not change the next
			random.Shuffle(len(tops), func(i, j int) { tops[i], tops[j] = tops[j], tops[i] })
			fall := random.IntN(len(tops) + 1)
			stays := map[string]bool{}
			for _, id := range tops[fall:] {
				for ; id != ""; id = parents[id] {
					stays[id] = true
				}
			}
			want := map[string]bool{}
			for _, id := range tops[:fall] {
				for ; id != ""; id = parents[id] {
					if !stays[id] {
						want[id] = true
					}
				}
			}
			got := f.without(tops[:fall])
			for i, id := range got {
				if !want[id] {
					t.Fatalf("%s goes, and something needs it", id)
				}
				if slices.Contains(got[i+1:], id) || parents[id] != "" && slices.Contains(got[:i], parents[id]) {
					t.Fatalf("%s comes twice, or after its parent, in %v", id, got)
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%v go, and nothing needs %v", got, want)
			}
		}
	}
}

// The scanner reads what a decoder of any JSON reads, or finds it odd.
func TestLayersAreReadAsADecoderDoes(t *testing.T) {
	real := []storage.Layer{{ID: "a", Names: []string{`x"y\`, "\u00e9\n"}, Metadata: `{"flags":"incomplete","id":"z"}\`, Created: time.Now(),
		UncompressedDigest: "sha256:1", UncompressedSize: 3, UIDs: []uint32{0, 5}}, {ID: "b-1", Parent: "a", Flags: map[string]any{"diff": []any{true, nil, 1.5e9}}}, {ID: "c", Parent: "b-1"}}
	text, err := json.Marshal(real)
	if err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(real, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	for text, plain := range map[string]bool{
		string(text): true, string(indented): true, "[]": true, " [ ]\n": true,
		`[{"id":"a","flags":{"incomplete":true}}]`: false, `[{"ID":"a"}]`: false, `[{"id":"\u0061"}]`: false, `[{"id":"a","p\u0061rent":"b"}]`: false, `[{"parent":"a"}]`: false, `null`: false,
		`[{"id":"a"}`: false, `[{"id":"a"}]]`: false, `[{"id":"a",}]`: false, `[{"id":"a"},]`: false, `[{"id" "a"}]`: false, `[{"id":"a","x":}]`: false, `[{"id":"a","x":"y\"}]`: false, `[`: false, `[{"id":"a","x":yes}]`: false,
		`[{"id":"a","x":[1,{"y":"]}"}]},{"id":"b","parent":"a"}]`: true,
	} {
		s := recordScanner{text: text}
		got := s.list()
		if s.odd == plain {
			t.Errorf("%s: odd is %v", text, s.odd)
		}
		var want []LayerRecord
		if err := json.Unmarshal([]byte(text), &want); plain && (err != nil || !reflect.DeepEqual(got, want)) {
			t.Errorf("%s: %v, and a decoder reads %v %v", text, got, want, err)
		}
	}
}

// A list that lost its bytes may have had layers that need pinned ones: it is an error, and not a graphroot without layers.
func TestEmptyListIsNoList(t *testing.T) {
	for _, name := range layerLists {
		dir := t.TempDir()
		if list, plain, err := LayerRecords(dir); err != nil || !plain || len(list) != 0 {
			t.Errorf("no lists: %v, %v, %v", list, plain, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if list, _, err := LayerRecords(dir); err == nil {
			t.Errorf("an empty %s is a list: %v", name, list)
		}
	}
}
