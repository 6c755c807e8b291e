package store

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// Where things are, relative to the repository. This file is the only one that builds paths.
const (
	extensionDir = "extensions/ostree-storage"
	lanesDir     = extensionDir + "/lanes"
	stagingDir   = extensionDir + "/staging"
	trashDir     = extensionDir + "/trash"
	unsyncedDir  = extensionDir + "/unsynced"
	indexName    = "index"
	ledgerFile   = extensionDir + "/ledger"
	indexDir     = extensionDir + "/" + indexName
	sealFile     = indexDir + "/new/" + index.SealName
	turnFile     = extensionDir + "/turn"
	gateFile     = extensionDir + "/gate"
	labelFile    = extensionDir + "/config"
	reserveFile  = extensionDir + "/reserve"
	lockFile     = ".lock"
	headsDir     = "refs/heads"
	layerRefs    = "layer/"
	layerRefsDir = headsDir + "/layer"
	stagedRefs   = "staged/" // below refs/heads: commits that have no name yet, one for each stage
)

// Inside a stage, beside what its owner makes there.
const (
	stageLock    = ".lock"    // held as long as the stage's process lives
	stageObjects = ".objects" // objects that are not in the tree, by their names
)

// noTime is the time of the lanes of a store with shared times.
var noTime = Time{Nsec: math.MaxUint32}

// A laneID names a lane.
type laneID struct {
	sum   object.Checksum
	time  Time
	n     uint32
	label labelSum // of an inode with a label that is not the store's
}

// A labelSum is the first half of a label's SHA-256; zero stands for the store label, or none where the store has none.
type labelSum [16]byte

// path is the lane's file below lanesDir: xx/<62 hex>.<seconds>.<nanoseconds>.<n>, or xx/<62 hex>.s.<n> without a time. One with a label of
// its own is xx/<62 hex>.<seconds>.<nanoseconds>.l<32 hex>.<n>.
func (l laneID) path() string {
	b := make([]byte, 0, 144)
	b = hex.AppendEncode(b, l.sum[:1])
	b = append(b, '/')
	b = hex.AppendEncode(b, l.sum[1:])
	if l.time == noTime {
		b = append(b, ".s"...)
	} else {
		b = append(b, '.')
		b = strconv.AppendInt(b, l.time.Sec, 10)
		b = append(b, '.')
		b = strconv.AppendUint(b, uint64(l.time.Nsec), 10)
	}
	if l.label != (labelSum{}) {
		b = append(b, ".l"...)
		b = hex.AppendEncode(b, l.label[:])
	}
	b = append(b, '.')
	b = strconv.AppendUint(b, uint64(l.n), 10)
	return string(b)
}

// parseLane reads what path returns.
func parseLane(path string) (l laneID, err error) {
	if i := strings.IndexByte(path, '.'); i >= 0 && i < 3 {
		return l, fmt.Errorf("parse lane %q: not xx/<checksum>", path)
	}
	f := strings.Split(path, ".")
	if len(path) < 3 || path[2] != '/' || len(f) < 3 || len(f) > 5 {
		return l, fmt.Errorf("parse lane %q: not <checksum>.<time>.<number>", path)
	}
	if l.sum, err = object.ParseChecksum(path[:2] + f[0][3:]); err != nil {
		return l, fmt.Errorf("parse lane %q: %w", path, err)
	}
	l.time = noTime
	var err1, err2, err3 error
	if len(f) == 5 {
		_, err3 = hex.Decode(l.label[:], []byte(f[3])[min(1, len(f[3])):min(33, len(f[3]))])
	}
	if len(f) > 3 {
		var nsec uint64
		l.time.Sec, err1 = strconv.ParseInt(f[1], 10, 64)
		nsec, err2 = strconv.ParseUint(f[2], 10, 32)
		l.time.Nsec = uint32(nsec)
	}
	n, err := strconv.ParseUint(f[len(f)-1], 10, 32)
	l.n = uint32(n)
	if err := errors.Join(err, err1, err2, err3); err != nil {
		return l, fmt.Errorf("parse lane %q: %w", path, err)
	}
	if l.path() != path {
		return l, fmt.Errorf("parse lane %q: canonical is %q", path, l.path())
	}
	return l, nil
}

// bootID is the kernel's random id of this boot: what another boot staged may not have reached the disk.
var bootID = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
})

// freshName returns <boot id>-<random>.
func freshName() (string, error) {
	id, err := bootID()
	if err != nil {
		return "", err
	}
	return id + "-" + randomName(), nil
}

func randomName() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// ofThisBoot tells if a name that freshName made is from this boot.
func ofThisBoot(name string) bool {
	id, err := bootID()
	return err == nil && strings.HasPrefix(name, id+"-")
}
