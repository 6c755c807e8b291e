// Package index counts, for every object of a repository, how many commits reach it, so that removing a commit costs
// what the commit holds and not what the store holds.
//
// The index is derived: it can be deleted and rebuilt from the commits, and nothing but the speed of removal depends on
// it. It errs on the safe side. An object is named by the first eight bytes of its checksum; where two objects share
// these, or where a crash left the list of a commit that is not there, an object counts as reached when it is
// not, and stays until the next full prune.
//
// On disk, below the directory that Open is given (docs/format.md, "Index"):
//
//	new/<commit>      the commit's list: its objects' keys, sorted. Not in any run yet
//	lists/<commit>    the same, for a commit that a run counts
//	dropped/<commit>  the same, for a commit that a run still counts, but that is gone
//	refs/<commit>     another name of the file that the commit's refs are
//	runs/<n>          sorted keys with their counts, merged from many lists
//	manifest          which runs count, and what the last compaction moved
//
// A key's count is the sum over the runs, less the dropped lists that have it, plus the new ones that have it.
//
// Locking is the caller's: Add under the repository's shared lock, Forget and Commit of a compaction under the
// exclusive one. Lists and runs never change once they have their name.
package index
