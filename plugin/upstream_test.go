package plugin_test

// checkSeesReadOnlyParents says that containers/storage's own check looks for the parents of layers in read-only stores too.
const checkSeesReadOnlyParents = true
