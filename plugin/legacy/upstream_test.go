package legacy_test

// deepest is the longest chain of the conformance tests. The driver's own limits are package plugin's to reach.
const deepest = 130

// checkSeesReadOnlyParents says that containers/storage's own check looks for the parents of layers in read-only stores too.
// v1.59 does not, whatever the driver, and reports them as missing.
const checkSeesReadOnlyParents = false
