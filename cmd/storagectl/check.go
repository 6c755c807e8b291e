package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/layers"
	"github.com/ostree-storage/ostree-storage/store"
	"github.com/ostree-storage/ostree-storage/store/object"
)

type finding struct {
	Kind       string   `json:"kind"`
	Home       string   `json:"home"`
	Object     string   `json:"object,omitempty"`
	Path       string   `json:"path"`
	Reason     string   `json:"reason"`
	Files      []string `json:"files"`
	Layers     []string `json:"layers"`
	Images     []string `json:"images"`
	Containers []string `json:"containers"`
	Repair     string   `json:"repair"`

	home   int
	of     *store.Finding
	faulty *layers.Fault
}

type checkAnswer struct {
	Findings []finding `json:"findings"`
	Quick    bool      `json:"quick"`
	Subset   string    `json:"subset,omitempty"`
	Seconds  float64   `json:"seconds"`
}

func (a *app) checkCommand() *cobra.Command {
	var quick bool
	var subset string
	c := &cobra.Command{
		Use:   "check",
		Short: "Look for damage, and change nothing",
		Long: `Reads every object, lane, ref, record, list of inodes and tree of the store and of the stores that it reads, and says what is
wrong, which files, layers, images and containers that hurts, and the command that repairs it. It changes nothing, and what is being
pulled, run or removed meanwhile is no finding.

--quick reads no bodies of files: names, metadata, sizes, times and reachability only. --subset 2/7 reads those of the second of seven
equal parts; seven runs with 1/7 to 7/7 read all. Exits with 2 if there is a finding.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.check(quick, subset) },
	}
	c.Flags().BoolVar(&quick, "quick", false, "read no bodies of files")
	c.Flags().StringVar(&subset, "subset", "", "read the bodies of part n of t, as n/t")
	return c
}

func (a *app) check(quick bool, subset string) error {
	part, parts, err := parseSubset(subset)
	if err != nil {
		return advise(err, "storagectl check --subset 1/7")
	}
	begin := time.Now()
	v := checkAnswer{Findings: []finding{}, Quick: quick, Subset: subset}
	root, exists, err := a.graphroot()
	if err != nil {
		return err
	}
	if !exists {
		return advise(fmt.Errorf("there is no store in %s", root), "storagectl pull IMAGE")
	}
	if v.Findings, err = a.findings(quick, part, parts); err != nil {
		return err
	}
	v.Seconds = time.Since(begin).Seconds()
	noteCheck(a.opened.RunRoot(), &v)
	rows := []string{}
	for _, f := range v.Findings {
		rows = append(rows, f.lines()...)
	}
	if len(v.Findings) == 0 {
		rows = append(rows, "Nothing is wrong.")
	}
	if err := a.answer(v, "", rows); err != nil {
		return err
	}
	if len(v.Findings) == 0 {
		return nil
	}
	return advise(codeError{exitDamage, errors.New(count(len(v.Findings), "finding"))}, "%s", v.Findings[0].Repair)
}

func parseSubset(s string) (part, parts int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	var rest string
	if n, _ := fmt.Sscanf(s, "%d/%d%s", &part, &parts, &rest); n != 2 || part < 1 || part > parts {
		return 0, 0, fmt.Errorf("--subset %s: not n/t with 1 ≤ n ≤ t", s)
	}
	return part, parts, nil
}

func (f *finding) lines() []string {
	out := []string{fmt.Sprintf("%s: %s: %s", f.Kind, printable(f.Path), f.Reason)}
	for _, list := range []struct {
		what  string
		names []string
	}{{"file", f.Files}, {"layer", f.Layers}, {"image", f.Images}, {"container", f.Containers}} {
		for _, n := range list.names {
			out = append(out, "  "+list.what+" "+printable(n))
		}
	}
	return append(out, "  repair: "+f.Repair)
}

// findings checks all homes.
func (a *app) findings(quick bool, part, parts int) ([]finding, error) {
	cs, err := a.catalogs()
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	out := []finding{}
	m, err := a.checkMeter(cs)
	if err != nil {
		return nil, err
	}
	defer m.stop()
	for i, c := range cs {
		r := store.FsckOptions{Quick: quick, Part: part, Parts: parts, Tell: m.objects}
		o := layers.CheckOptions{Quick: quick, Part: part, Parts: parts, Homes: cs, Tell: m.layer}
		err := layers.CheckHome(ctx, c, r, o, func(f store.Finding) {
			n := finding{Kind: string(f.Kind), Home: c.Home(), Path: f.Path, Reason: f.Reason, home: i, of: &f}
			if !f.Object.Checksum.IsZero() {
				n.Object = f.Object.String()
			}
			out = append(out, n)
		}, func(f layers.Fault) {
			n := finding{Kind: string(f.Kind), Home: c.Home(), Path: "layers/" + f.Layer, Reason: f.Reason, Layers: []string{f.Layer}, home: i, faulty: &f}
			if f.Path != "" {
				n.Path += "/tree/" + f.Path
				n.Files = []string{"/" + f.Path}
			}
			out = append(out, n)
		})
		if err != nil {
			return nil, err
		}
		m.next()
	}
	more, err := a.lostLayers(cs)
	if err != nil {
		return nil, err
	}
	return a.affected(append(out, more...))
}

// A checkMeter shows how far a check is: directories of objects and layers, of all homes.
type checkMeter struct {
	*meter
	homes        []int64 // how many steps each takes
	start, total int64   // of this home; of all

	mu   sync.Mutex
	dirs int // of this home's objects, that are read
	done int // of this home's layers
}

func (a *app) checkMeter(cs layers.Catalogs) (*checkMeter, error) {
	m := &checkMeter{meter: a.newMeter("check")}
	for _, c := range cs {
		ids, err := c.IDs()
		if err != nil {
			return nil, err
		}
		m.homes = append(m.homes, store.ObjectDirs+int64(len(ids)))
		m.total += m.homes[len(m.homes)-1]
	}
	return m, nil
}

// objects says how many directories of this home's objects are read.
func (m *checkMeter) objects(done int) { m.step(func() { m.dirs = done }) }

// layer says that one more of this home's layers is read.
func (m *checkMeter) layer() { m.step(func() { m.done++ }) }

func (m *checkMeter) step(note func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	note()
	m.set(min(m.start+int64(m.dirs)+int64(m.done), m.total), m.total)
}

// next goes to the next home.
func (m *checkMeter) next() {
	m.start, m.dirs, m.done, m.homes = m.start+m.homes[0], 0, 0, m.homes[1:]
	m.set(m.start, m.total)
}

// lostLayers are layers that containers/storage knows and the driver has not.
func (a *app) lostLayers(cs layers.Catalogs) ([]finding, error) {
	byID, err := layersOf(a.opened)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	var out []finding
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		if _, err := cs.Find(id); errors.Is(err, layers.ErrUnknown) {
			if _, err := os.Lstat(filepath.Join(cs[0].Home(), "layers", id)); err == nil {
				continue // its record is at fault, which is told already
			}
			out = append(out, finding{Kind: "lost", Home: cs[0].Home(), Path: "layers/" + id, Reason: "the driver has no such layer", Layers: []string{id}})
		}
	}
	return out, nil
}

// affected says who is hurt by findings, and what to do.
func (a *app) affected(list []finding) ([]finding, error) {
	if len(list) == 0 {
		return list, nil
	}
	byID, err := layersOf(a.opened)
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	byRef := map[string]string{}
	for id := range byID {
		byRef["refs/heads/"+layers.RefOf(id)] = id
	}
	images, err := a.images()
	if err != nil {
		return nil, err
	}
	containers, err := a.opened.Containers()
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	for i := range list {
		f := &list[i]
		f.Layers, f.Files = append([]string{}, f.Layers...), append([]string{}, f.Files...)
		if f.of != nil {
			for _, ref := range append(f.of.Refs, f.of.Path) {
				if id := byRef[ref]; id != "" {
					f.Layers = append(f.Layers, id)
				}
			}
		}
	}
	if err := a.filesOf(list); err != nil {
		return nil, err
	}
	for i := range list {
		a.hurt(&list[i], byID, images, containers)
	}
	return list, nil
}

// hurt names the images and containers that a finding hurts, and the command to try.
func (a *app) hurt(f *finding, byID map[string]*storage.Layer, images []*knownImage, containers []storage.Container) {
	within := func(top string) bool {
		for id := top; id != "" && byID[id] != nil; id = byID[id].Parent {
			if slices.Contains(f.Layers, id) {
				return true
			}
		}
		return false
	}
	f.Images, f.Containers = []string{}, []string{}
	var source string
	for _, k := range images {
		if within(k.TopLayer) {
			f.Images = append(f.Images, name(k.ID, k.Names))
			if source == "" && len(k.Names) > 0 {
				source = k.Names[0]
			}
		}
	}
	for _, c := range containers {
		if within(c.LayerID) {
			f.Containers = append(f.Containers, name(c.ID, c.Names))
		}
	}
	f.Repair = a.repairOf(f, source)
}

// repairOf is the command that repairs a finding.
func (a *app) repairOf(f *finding, source string) string {
	if source == "" {
		source = "IMAGE"
	}
	repair := "storagectl repair"
	if !a.isOurs(f.home) {
		repair = "storagectl --root " + filepath.Dir(f.Home) + " repair"
	}
	from := repair + " --from docker://" + source
	switch {
	case f.Kind == string(store.Foreign):
		return "mv " + filepath.Join(f.Home, "repo", f.Path) + " elsewhere"
	case f.Kind == "lost", f.Kind == string(layers.FaultTree) && f.Reason == "it is not in the commit":
		return "podman pull " + source
	case f.of != nil && (f.of.Kind == store.Missing || f.of.Kind == store.Corrupt):
		o := a.mendOptions(f.home, true)
		o.Files = a.treeCopies(*f)
		if _, err := a.homes[f.home].Repo().Mend(context.Background(), f.of.Object, o); err != nil {
			return from
		}
	}
	return repair
}

// maxFiles is how many files of one damaged object are named.
const maxFiles = 20

// filesOf names the files of damaged objects, in the layers that have them.
func (a *app) filesOf(list []finding) error {
	byLayer := map[string]map[object.Checksum][]*finding{}
	for i := range list {
		f := &list[i]
		if f.of == nil || f.of.Object.Type != object.TypeFile {
			continue
		}
		for _, id := range f.Layers {
			if byLayer[id] == nil {
				byLayer[id] = map[object.Checksum][]*finding{}
			}
			byLayer[id][f.of.Object.Checksum] = append(byLayer[id][f.of.Object.Checksum], f)
		}
	}
	for id, wanted := range byLayer {
		l, err := a.homes.Find(id)
		if err != nil || !l.Applied() {
			continue
		}
		_ = l.Walk(context.Background(), func(e *layers.Entry) error { // what cannot be walked is a finding itself
			for _, f := range wanted[e.Checksum] {
				if len(f.Files) < maxFiles && !slices.Contains(f.Files, "/"+e.Path) && !e.IsDir() {
					f.Files = append(f.Files, "/"+e.Path)
				}
			}
			return nil
		})
	}
	return nil
}

// A checkRecord says when a store was last checked. It is in the runroot: a check changes nothing in the store.
type checkRecord struct {
	Time     string `json:"time"`
	Quick    bool   `json:"quick"`
	Subset   string `json:"subset,omitempty"`
	Findings int    `json:"findings"`
}

const checkFile = "storagectl-check.json"

func (r *checkRecord) String() string {
	if r == nil {
		return "not since boot"
	}
	kind := "full"
	if r.Quick {
		kind = "quick"
	}
	if r.Subset != "" {
		kind = strings.TrimSpace(kind + " " + r.Subset)
	}
	return fmt.Sprintf("%s, %s, %s", r.Time, kind, count(r.Findings, "finding"))
}

func noteCheck(runroot string, v *checkAnswer) {
	b, err := json.Marshal(checkRecord{stamp(time.Now()), v.Quick, v.Subset, len(v.Findings)})
	if err == nil {
		_ = os.WriteFile(filepath.Join(runroot, checkFile), b, 0o600) // status then says less
	}
}

func lastCheck(runroot string) *checkRecord {
	b, err := os.ReadFile(filepath.Join(runroot, checkFile))
	r := &checkRecord{}
	if err != nil || json.Unmarshal(b, r) != nil {
		return nil
	}
	return r
}
