// Command storagectl looks at, checks and keeps the images of the ostree graph driver. Its verbs are a file each.
package main

import (
	"fmt"
	"os"

	"go.podman.io/storage/pkg/reexec"
)

func main() {
	if err := continueInUserNamespace(); err != nil {
		fmt.Fprintf(os.Stderr, "storagectl: %v\nnext: podman unshare storagectl\n", err)
		os.Exit(exitError)
	}
	if reexec.Init() {
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
