package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type statusAnswer struct {
	Driver     string            `json:"driver"`
	Graphroot  string            `json:"graphroot"`
	Exists     bool              `json:"exists"`
	Format     int               `json:"format,omitempty"`
	Filesystem map[string]string `json:"filesystem,omitempty"`
	Status     map[string]string `json:"status,omitempty"`
	Images     int               `json:"images"`
	Layers     int               `json:"layers"`
	Containers int               `json:"containers"`
	LastCheck  *checkRecord      `json:"last_check,omitempty"`
	Next       string            `json:"next,omitempty"`
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Say what the driver found and how it works here",
		Long: `Says what the driver found: the filesystem's abilities, the on-disk format, the options that hold, the pinned store, and when
the store was last checked. If there is no graphroot, that is the answer, and none is made.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.status() },
	}
}

func (a *app) status() error {
	root, exists, err := a.graphroot()
	if err != nil {
		return err
	}
	v := statusAnswer{Driver: driverName, Graphroot: root, Exists: exists}
	if !exists {
		v.Next = "storagectl pull IMAGE"
		return a.answer(v, "", []string{
			row("Driver", driverName), row("Graphroot", root+" (there is none)"), row("Next", v.Next),
		})
	}
	s, err := a.store()
	if err != nil {
		return err
	}
	pairs, err := s.Status()
	if err != nil {
		return fmt.Errorf("ask the driver: %w", err)
	}
	rows := []string{row("Driver", driverName), row("Graphroot", root)}
	v.Status = map[string]string{}
	for _, pair := range pairs {
		v.Status[pair[0]] = pair[1]
		rows = append(rows, row(pair[0], pair[1]))
	}
	v.Format = formatOf(root)
	v.Filesystem = map[string]string{
		"type": v.Status["Backing Filesystem"], "reflink": v.Status["Reflink"], "link_limit": v.Status["Link limit"],
		"idmap": v.Status["Supports shifting"], "erofs": kernelHas("erofs"),
	}
	images, err := a.images()
	if err != nil {
		return err
	}
	all, err := s.Layers()
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	containers, err := s.Containers()
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	v.Images, v.Layers, v.Containers, v.LastCheck = len(images), len(all), len(containers), lastCheck(s.RunRoot())
	rows = append(rows, row("Format", fmt.Sprint(v.Format)), row("EROFS in the kernel", v.Filesystem["erofs"]),
		row("Images", fmt.Sprint(v.Images)), row("Layers", fmt.Sprint(v.Layers)), row("Containers", fmt.Sprint(v.Containers)),
		row("Last check", v.LastCheck.String()))
	return a.answer(v, "", rows)
}

// formatOf is the on-disk format of a graphroot.
func formatOf(root string) int {
	var v struct{ Format int }
	if b, err := os.ReadFile(filepath.Join(root, driverName, "version")); err == nil {
		_ = json.Unmarshal(b, &v)
	}
	return v.Format
}

// kernelHas tells if the running kernel knows a filesystem without loading anything.
func kernelHas(filesystem string) string {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == filesystem {
			return "true"
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		dir := "/lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/kernel/fs/" + filesystem
		if _, err := os.Stat(dir); err == nil {
			return "module"
		}
	}
	return "false"
}
