// Command storagectl looks at, checks and keeps the images of the ostree graph driver. Its verbs are a file each.
package main

import (
	"os"

	"go.podman.io/storage/pkg/reexec"
)

func main() {
	if reexec.Init() {
		return
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
