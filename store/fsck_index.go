package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store/index"
	"github.com/ostree-storage/ostree-storage/store/object"
)

// index looks whether the index says what the commits say. It is derived, and a wrong count is no damage to any image; but
// one that is too high keeps garbage, and one that is too low would delete what is needed.
func (x *check) index(ctx context.Context) error {
	reason, err := x.indexReason(ctx, Finding{})
	if err == nil && reason != "" {
		err = x.add(Finding{Kind: Index, Path: indexDir, Reason: reason})
	}
	if err != nil || reason != "" {
		return err // an index that cannot be read, or that adds up wrongly, is wrong as a whole
	}
	if x.o.Quick {
		return nil
	}
	wrong, err := x.r.wrongLists(ctx)
	if isDamagedIndex(err) {
		return x.add(Finding{Kind: Index, Path: indexDir, Reason: err.Error()})
	}
	if err != nil {
		return err
	}
	for c, reason := range wrong {
		err = errors.Join(err, x.add(Finding{
			Kind: Index, Object: object.Name{Checksum: c, Type: object.TypeCommit}, Path: indexDir, Reason: reason,
		}))
	}
	return err
}

// indexReason says what is wrong with the list of the finding's commit, or, if it names none, with the whole.
func (x *check) indexReason(ctx context.Context, f Finding) (string, error) {
	i, err := x.r.lookIndex()
	if i == nil || err != nil {
		return "", err
	}
	defer i.Close()
	if f.Object.Type == object.TypeCommit {
		return x.r.wrongList(ctx, i, f.Object.Checksum)
	}
	reason, err := wrongSums(i)
	if err == nil && reason == "" {
		reason = x.r.wrongSeal()
	}
	return reason, err
}

// wrongSeal says what the seal claims and is not so.
func (r *root) wrongSeal() string {
	before, _, err := r.describeRefs()
	if err != nil || !r.sealed() {
		return ""
	}
	_, rest, err := r.countedRefs(layerRefsDir)
	after, _, afterErr := r.describeRefs()
	at := slices.IndexFunc(rest, isFragment)
	if at < 0 || errors.Join(err, afterErr) != nil || before != after || !r.sealed() {
		return ""
	}
	return fmt.Sprintf("its seal says that all refs of layers are counted, and %s is not", rest[at])
}

// wrongSums says why the index as a whole cannot be used.
func wrongSums(i *index.Index) (string, error) {
	for range maxAgain { // others may change it while it is read
		before, err := i.Stamp()
		if err != nil {
			return "", err
		}
		wrong, err := i.Verify()
		if wrong == nil && err == nil {
			return "", nil
		}
		after, stampErr := i.Stamp()
		if stampErr != nil {
			return "", stampErr
		}
		if before != after || errors.Is(err, os.ErrNotExist) && !isDamagedIndex(err) {
			continue
		}
		if err != nil && !isDamagedIndex(err) {
			return "", err
		}
		if err != nil {
			return err.Error(), nil
		}
		return fmt.Sprintf("it counts objects whose checksums begin with %016x differently than its lists do", uint64(*wrong)), nil
	}
	return "a run that its manifest names is missing", nil
}

func isDamagedIndex(err error) bool {
	var damaged *index.DamagedError
	return errors.As(err, &damaged)
}

// lookIndex opens the index for reading; nil if there is none.
func (r *root) lookIndex() (*index.Index, error) {
	i, err := index.Look(r.path + "/" + indexDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return i, err
}

// wrongLists returns the commits of whose objects the index has another list than they reach. The error is a
// *index.DamagedError if the index as a whole cannot be used.
func (r *root) wrongLists(ctx context.Context) (map[object.Checksum]string, error) {
	i, err := r.lookIndex()
	if i == nil || err != nil {
		return nil, err
	}
	defer i.Close()
	if reason, err := wrongSums(i); err != nil || reason != "" {
		return nil, cmp.Or(err, error(&index.DamagedError{Path: indexDir, Reason: reason}))
	}
	commits, err := i.Commits()
	if err != nil {
		return nil, err
	}
	out := map[object.Checksum]string{}
	for _, c := range commits {
		reason, err := r.wrongList(ctx, i, c)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			out[c] = reason
		}
	}
	return out, nil
}

// wrongList says what is wrong with the list of one commit.
func (r *root) wrongList(ctx context.Context, i *index.Index, c object.Checksum) (string, error) {
	list, err := i.Keys(c)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // forgotten meanwhile
	}
	if isDamagedIndex(err) {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	there, err := (&Objects{r}).Has(object.Name{Checksum: c, Type: object.TypeCommit})
	if err != nil {
		return "", err
	}
	if !there {
		return r.gone(c)
	}
	keys, err := r.keysOf(ctx, c)
	if isCorrupt(err) {
		return "", nil // reported already; what it reaches is not known
	}
	if err != nil {
		return "", err
	}
	if slices.Equal(list, keys) {
		return i.WrongRef(c)
	}
	there, err = (&Objects{r}).Has(object.Name{Checksum: c, Type: object.TypeCommit})
	if err != nil || !there {
		return "", err
	}
	return fmt.Sprintf("its list of commit %s has %d objects, and the commit reaches %d", c, len(list), len(keys)), nil
}

// gone is about a counted commit that is not there: while something is removed or undone that is as it should be.
func (r *root) gone(c object.Checksum) (string, error) {
	for _, dir := range []string{stagingDir, trashDir} {
		names, err := r.list(dir)
		if len(names) > 0 || err != nil {
			return "", err
		}
	}
	var st unix.Stat_t
	for _, folder := range []string{"/new/", "/lists/"} {
		if lstat(r.fd(), indexDir+folder+c.String(), &st) == nil {
			return fmt.Sprintf("it counts commit %s, which is not there", c), nil
		}
	}
	return "", nil
}
