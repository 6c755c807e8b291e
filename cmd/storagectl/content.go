package main

import (
	"bytes"
	"errors"
	"io"
)

// sameContent compares the bytes of two regular files of equal size.
func sameContent(x, y *file) (bool, error) {
	_, fx, err := x.from.Catalog().Repo().OpenFile(x.Checksum)
	if err != nil {
		return false, err
	}
	defer fx.Close()
	_, fy, err := y.from.Catalog().Repo().OpenFile(y.Checksum)
	if err != nil {
		return false, err
	}
	defer fy.Close()
	bx, by := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		nx, errX := io.ReadFull(fx, bx)
		ny, errY := io.ReadFull(fy, by)
		if nx != ny || !bytes.Equal(bx[:nx], by[:ny]) {
			return false, nil
		}
		if errX == io.EOF || errors.Is(errX, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err := errors.Join(errX, errY); err != nil {
			return false, err
		}
	}
}
