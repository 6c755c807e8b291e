package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ostree-storage/ostree-storage/pins"
)

// answers are the documents that --format json prints, by verb.
var answers = map[string]any{
	"status": statusAnswer{}, "images": []imageAnswer{}, "layers": []layerAnswer{}, "du": duAnswer{}, "ls": []fileAnswer{},
	"show": showAnswer{}, "show --layer": showLayer{}, "log": []historyAnswer{}, "diff": diffAnswer{}, "checkout": checkoutAnswer{},
	"mount, umount": []mountAnswer{}, "gc": gcAnswer{}, "check": checkAnswer{}, "repair": repairAnswer{},
	"pin": pinAnswer{}, "pin ls": []pins.Listed{}, "pin ls --held": heldAnswer{}, "pin verify": pins.Verified{}, "pin doctor": doctorAnswer{},
	"unpin": unpinAnswer{}, "man": manAnswer{},
	"pull, push, copy": transferAnswer{}, "version": versionAnswer{}, "any, on an error": errorAnswer{},
}

// TestSchemaIsDocumented holds docs/storagectl.md to the fields of the documents: each verb has a block of its fields there.
func TestSchemaIsDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/storagectl.md")
	if err != nil {
		t.Fatal(err)
	}
	for verb, v := range answers {
		var fields strings.Builder
		describe(&fields, reflect.TypeOf(v), "")
		block := "#### " + verb + "\n\n```\n" + fields.String() + "```\n"
		if !strings.Contains(string(b), block) {
			t.Errorf("docs/storagectl.md lacks, or has otherwise:\n%s", block)
		}
	}
}

// describe lists the fields of a type, one a line.
func describe(w *strings.Builder, t reflect.Type, at string) {
	switch t.Kind() {
	case reflect.Pointer:
		describe(w, t.Elem(), at)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(w, "%s: object\n", at)
			return
		}
		describe(w, t.Elem(), at+"[]")
	case reflect.Map:
		describe(w, t.Elem(), at+"{}")
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			fmt.Fprintf(w, "%s: time\n", at)
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			if !f.IsExported() {
				continue
			}
			if f.Anonymous && f.Tag == "" {
				describe(w, f.Type, at)
				continue
			}
			name, option, _ := strings.Cut(f.Tag.Get("json"), ",")
			if option == "omitempty" {
				name += "?"
			}
			describe(w, f.Type, strings.TrimPrefix(at+"."+name, "."))
		}
	default:
		fmt.Fprintf(w, "%s: %s\n", at, t.Kind())
	}
}

// TestWriteSchema prints the blocks for docs/storagectl.md where WRITE_SCHEMA names a file.
func TestWriteSchema(t *testing.T) {
	path := os.Getenv("WRITE_SCHEMA")
	if path == "" {
		t.Skip("WRITE_SCHEMA names no file")
	}
	order := []string{
		"status", "images", "layers", "du", "ls", "show", "show --layer", "log", "diff", "checkout", "mount, umount", "gc", "check", "repair",
		"pin", "unpin", "pin ls", "pin ls --held", "pin verify", "pin doctor", "pull, push, copy", "man", "version", "any, on an error",
	}
	var w strings.Builder
	for _, verb := range order {
		w.WriteString("#### " + verb + "\n\n```\n")
		describe(&w, reflect.TypeOf(answers[verb]), "")
		w.WriteString("```\n\n")
	}
	if err := os.WriteFile(path, []byte(w.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
