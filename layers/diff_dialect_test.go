package layers_test

import (
	"context"
	"io"
	"os/user"
	"testing"

	"go.podman.io/storage/pkg/archive"

	"github.com/ostree-storage/ostree-storage/layers"
)

// upstreamWriter is what a plugin gives to DetectTarDialect.
func upstreamWriter(upper string, maps []layers.IDMap) (io.ReadCloser, error) {
	return archive.TarWithOptions(upper, &archive.TarOptions{
		UIDMaps: upstreamMaps(maps), GIDMaps: upstreamMaps(maps), WhiteoutFormat: archive.OverlayWhiteoutFormat,
	})
}

func TestDetectTarDialect(t *testing.T) {
	dir := tmpfs(t)
	got, err := layers.DetectTarDialect(dir, upstreamWriter)
	if must(t, err); got != (layers.TarDialect{}) {
		t.Errorf("upstream of these tests has dialect %+v", got)
	}
	_, noRoot := user.LookupId("0")
	for _, want := range []layers.TarDialect{
		{},
		{TypeBits: true},
		{Names: noRoot == nil},
		{OverlayUser: true},
		{PlainLinks: true},
		{LinkToLast: true},
		{RawCaps: true},
		{TypeBits: true, Names: noRoot == nil, OverlayUser: true, PlainLinks: true, RawCaps: true},
	} {
		got, err := layers.DetectTarDialect(dir, func(upper string, maps []layers.IDMap) (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() {
				o := layers.DiffOptions{Upper: upper, UIDMaps: maps, GIDMaps: maps, Dialect: want}
				w.CloseWithError(layers.WriteDiff(context.Background(), w, o))
			}()
			return r, nil
		})
		if must(t, err); got != want {
			t.Errorf("dialect %+v was taken for %+v", want, got)
		}
	}
}
