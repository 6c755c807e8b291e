package overlay

// A Range maps Size ids from Container on, as they are on disk, to those from Host on.
type Range struct{ Container, Host, Size uint32 }

// An IDMap says which owners a mount shows for the owners on disk, as uid_map of a user namespace does.
type IDMap struct{ UIDs, GIDs []Range }
