package store

import (
	"fmt"
	"strings"
)

// formatVersion is that of the extension directory. A repository with a higher one is not opened.
const formatVersion = "1"

const repoConfig = "[core]\nrepo_version=1\nmode=bare\n"

// labelConfig is the extension's own config, which holds what was fixed when the repository was made.
func labelConfig(label string) string {
	s := "[ostree-storage]\nformat=" + formatVersion + "\n"
	if label != "" {
		s += "label=" + label + "\n"
	}
	return s
}

// checkLabel refuses what would not survive the config file or setxattr.
func checkLabel(label string) error {
	if strings.ContainsAny(label, "\n\r\x00") || strings.TrimSpace(label) != label {
		return fmt.Errorf("store label %q: %w", label, ErrUnsupported)
	}
	return nil
}

// keyFile reads one group of a GKeyFile. Values are not unescaped: none that we look at has escapes.
func keyFile(text, group string) map[string]string {
	m := map[string]string{}
	current := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' && line[len(line)-1] == ']' {
			current = line[1 : len(line)-1]
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && current == group {
			m[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	return m
}

// checkRepoConfig refuses a repository that this package cannot keep.
func checkRepoConfig(text string) error {
	core := keyFile(text, "core")
	if v := core["repo_version"]; v != "1" {
		return fmt.Errorf("repository version %q: %w", v, ErrUnsupported)
	}
	if mode, ok := core["mode"]; ok && mode != "bare" {
		return fmt.Errorf("repository mode %q: %w", mode, ErrUnsupported)
	}
	return nil
}

// parseLabelConfig returns the store label of an extension config.
func parseLabelConfig(text string) (string, error) {
	m := keyFile(text, "ostree-storage")
	if v := m["format"]; v != formatVersion {
		return "", fmt.Errorf("format %q of %s: %w", v, labelFile, ErrUnsupported)
	}
	return m["label"], nil
}
