package store

import (
	"C"
	"log"

	_ "go.podman.io/storage"
	_ "golang.org/x/sys/unix"
)

type Open struct{}

func (Open) Undocumented() { log.Print() }

func (Open) String() string { return "" }

func (closed) Fine() {}

type closed struct{}

const (
	One = 1
	// Two is documented.
	Two   = 2
	Three = 3 // is documented
)

var V = 1

func Function() {}
