package policy

// A room is what one directory's package may import besides the standard
// library. Test files may import anything.
type room struct {
	dir     string   // below the module's root
	rooms   []string // directories of this module
	modules []string // import path prefixes of others
}

// Module is this module's path.
const Module = "github.com/ostree-storage/ostree-storage"

const (
	sys    = "golang.org/x/sys"
	sync   = "golang.org/x/sync"
	logrus = "github.com/sirupsen/logrus"
)

// rooms is a statement of policy: the rooms of the design and who may know whom.
// DO NOT CHANGE THIS DATA TO FIX A BUILD. A package that needs something from a
// room that it may not import is in the wrong room, or asks for the wrong thing.
//
// No room but plugin and the programs may import containers/storage, under
// either of its names: store, layers, selinux and driver build without it.
var rooms = []room{
	{"store/object", nil, nil}, // pure: no files, no paths
	{"store/index", []string{"store/object"}, []string{sys}},
	{"store/ledger", []string{"store/object"}, nil}, // pure
	{"store", []string{"store/object", "store/index", "store/ledger"}, []string{sys, sync}},
	{"store/storetest", []string{"store"}, nil},
	{"layers", []string{"store", "store/object"}, []string{sys, sync}},
	{"selinux", nil, []string{sys, "github.com/opencontainers/selinux", "github.com/dlclark/regexp2"}},
	{"internal/overlay", nil, []string{sys, "github.com/moby/sys/mountinfo"}},
	{"internal/testfs", nil, []string{sys, "github.com/moby/sys/mountinfo"}},
	{"internal/graphroots", nil, []string{sys}},
	{"driver", []string{"layers", "selinux", "internal/overlay", "internal/graphroots"}, []string{sys, logrus, "github.com/BurntSushi/toml"}},
	{"plugin", []string{"driver"}, []string{"go.podman.io/storage", logrus}},
	{"plugin/legacy", []string{"driver"}, []string{"github.com/containers/storage", logrus}},
	{"pins", []string{"layers", "store", "store/object", "internal/graphroots"},
		[]string{"go.podman.io/storage", "github.com/opencontainers/go-digest", "github.com/klauspost/compress", "github.com/BurntSushi/toml", sys}},
	{"cmd/storagectl", []string{"plugin", "pins", "layers", "selinux", "store", "store/object"}, []string{""}},
	{"integration", []string{""}, []string{""}},
	{"hack", []string{""}, []string{""}},
	{"docs", nil, nil}, // tests of what the pages say
}

// below are rooms whose packages may have packages of their own below them, with
// the same rights.
var below = map[string]bool{"integration": true, "hack": true, "cmd/storagectl": true}

// quiet are the rooms that return what they have to say and do it themselves: no
// logs, and no other programs.
var quiet = map[string]bool{
	"store": true, "store/object": true, "store/index": true, "store/ledger": true, "layers": true, "selinux": true, "internal/overlay": true,
}

var unquiet = map[string]bool{"log": true, "log/slog": true, "os/exec": true}

// The budgets. Tests have only one for files.
const (
	maxFileLines     = 400
	maxTestFileLines = 600
	maxFuncLines     = 60
	maxMethods       = 16
)

// manyMethods are types whose methods another module's interface dictates.
var manyMethods = map[string]bool{"driver.Driver": true, "plugin.adapter": true, "legacy.adapter": true}

// plainMethods do what everybody knows they do.
var plainMethods = map[string]bool{"Error": true, "Unwrap": true, "String": true, "Len": true, "Less": true, "Swap": true}

// bannedNames say nothing about what is in a package.
var bannedNames = map[string]bool{
	"manager": true, "helper": true, "util": true, "common": true, "handle": true, "process": true, "data": true, "info": true,
	"managers": true, "helpers": true, "utils": true, "handles": true, "misc": true,
}
