package driver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// ConfigVariable is the environment variable that names another configuration file; "" or "none" is no file at all.
const ConfigVariable = "OSTREE_DRIVER_CONF"

const systemConfig = "/etc/containers/ostree-driver.conf"

// configPath returns the driver's own configuration file, and whether it was asked for by name, so that it has to exist.
func configPath(rootless bool) (path string, named bool) {
	if v, ok := os.LookupEnv(ConfigVariable); ok {
		if v == "none" {
			v = ""
		}
		return v, true
	}
	if !rootless {
		return systemConfig, false
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", false
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "containers", "ostree-driver.conf"), false
}

// readConfig reads the driver's own configuration file: TOML, with the options' keys at the top level. It exists because storage.conf
// has no place for options of a driver that containers/storage does not know, and so that every program sees the same.
// What comes back is spelled as options are, in the order of the keys.
func readConfig(rootless bool) ([]string, error) {
	path, named := configPath(rootless)
	if path == "" {
		return nil, nil
	}
	var values map[string]any
	if _, err := toml.DecodeFile(path, &values); err != nil {
		if errors.Is(err, fs.ErrNotExist) && !named {
			return nil, nil
		}
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var options []string
	for _, k := range keys {
		v, err := configValue(k, values[k])
		if err != nil {
			return nil, fmt.Errorf("read %s: %s: %w", path, k, err)
		}
		if _, err := ParseSettings([]string{k + "=" + v}); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		options = append(options, k+"="+v)
	}
	return options, nil
}

// configValue spells a TOML value as an option's. A list is joined as the option wants it.
func configValue(key string, v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case []any:
		separator := ","
		if key == "share_with" {
			separator = ":"
		}
		parts := make([]string, len(v))
		for i := range v {
			s, ok := v[i].(string)
			if !ok {
				return "", fmt.Errorf("%w: a list may hold strings alone", ErrOption)
			}
			parts[i] = s
		}
		return strings.Join(parts, separator), nil
	}
	return "", fmt.Errorf("%w: a value is a string, a number, true or false, or a list of strings", ErrOption)
}

// LoadSettings reads the configuration file and then the host program's options, which win.
func LoadSettings(o Options) (Settings, error) {
	fromFile, err := readConfig(o.Rootless)
	if err != nil {
		return Settings{}, err
	}
	return ParseSettings(append(fromFile, o.Settings...))
}
