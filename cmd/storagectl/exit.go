package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ostree-storage/ostree-storage/store"
)

// The exit codes are a contract with scripts; docs/storagectl.md lists them.
const (
	exitFine     = 0
	exitError    = 1
	exitDamage   = 2
	exitRepaired = 3
	exitRefused  = 4
	exitNoSpace  = 5
	exitBusy     = 6
)

// A codeError is an error with an exit code of its own.
type codeError struct {
	code int
	error
}

func (e codeError) Unwrap() error { return e.error }

// refused marks an error that says that something may not be done, as opposed to could not.
func refused(err error) error { return codeError{exitRefused, err} }

func exitCode(err error) int {
	var coded codeError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return exitNoSpace
	case errors.Is(err, store.ErrBusy):
		return exitBusy
	}
	return exitError
}
