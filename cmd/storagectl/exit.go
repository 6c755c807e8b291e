package main

import (
	"errors"
	"fmt"

	"go.podman.io/storage"
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

// A nextError is an error with the command to try next.
type nextError struct {
	error
	next string
}

func (e nextError) Unwrap() error { return e.error }

// advise says what command to try after an error. An error that has advice already keeps it.
func advise(err error, format string, args ...any) error {
	var has nextError
	if err == nil || errors.As(err, &has) {
		return err
	}
	return nextError{err, fmt.Sprintf(format, args...)}
}

func exitCode(err error) int {
	var coded codeError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return exitNoSpace
	case errors.Is(err, store.ErrBusy), errors.Is(err, unix.EBUSY):
		return exitBusy
	case errors.Is(err, storage.ErrImageUsedByContainer), errors.Is(err, storage.ErrLayerUsedByContainer):
		return exitBusy
	}
	return exitError
}

type errorAnswer struct {
	Error string `json:"error"`
	Code  int    `json:"code"`
	Next  string `json:"next"`
}

// fail prints an error and what to do next, and returns the exit code.
func (a *app) fail(err error) int {
	code := exitCode(err)
	next := "storagectl --help"
	var has nextError
	switch {
	case errors.As(err, &has):
		next = has.next
	case code == exitNoSpace:
		next = "storagectl gc"
	case code == exitDamage:
		next = "storagectl repair --dry-run"
	case code == exitBusy:
		next = "storagectl status"
	}
	if a.format == "json" && !a.answered {
		_ = a.answer(errorAnswer{err.Error(), code, next}, "", nil)
	}
	fmt.Fprintf(a.errOut, "storagectl: %v\nnext: %s\n", err, next)
	return code
}
