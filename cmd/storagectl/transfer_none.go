//go:build !containers_image_openpgp

package main

import "errors"

// hasTransports says that this program was built without containers/image: without this tag that module needs cgo.
const hasTransports = false

var errNoTransports = errors.New("this storagectl was built without the tag containers_image_openpgp, and so without containers/image")

func (a *app) pull(*transfer, string, string) error { return advise(errNoTransports, "make build") }

func (a *app) push(*transfer, string, string) error { return advise(errNoTransports, "make build") }

func (a *app) copyImage(*transfer, string, string) error {
	return advise(errNoTransports, "make build")
}
