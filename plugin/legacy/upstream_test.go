package legacy_test

// checkSeesReadOnlyParents says that containers/storage's own check looks for the parents of layers in read-only stores too.
// v1.59 does not, whatever the driver, and reports them as missing.
const checkSeesReadOnlyParents = false
