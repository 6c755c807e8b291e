package differential_test

import _ "github.com/ostree-storage/ostree-storage/plugin" // registers ours
