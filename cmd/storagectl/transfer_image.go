//go:build containers_image_openpgp

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	imagestorage "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/transports"
	"go.podman.io/image/v5/transports/alltransports"
	"go.podman.io/image/v5/types"
)

// hasTransports says that this program was built with containers/image.
const hasTransports = true

func known(transport string) bool { return transports.Get(transport) != nil }

func (a *app) pull(t *transfer, from, name string) error {
	from = withTransport(from, known)
	if name == "" {
		var err error
		if name, err = storedName(from); err != nil {
			return err
		}
	} else if name = completed(localName(name)); name == "" {
		return fmt.Errorf("not a name for an image")
	}
	return a.copyImage(t, from, "containers-storage:"+name)
}

func (a *app) push(t *transfer, name, to string) error {
	image, err := a.image(name)
	if err != nil {
		return err
	}
	src, err := a.reference("containers-storage:@" + image.ID)
	if err != nil {
		return err
	}
	dst, err := a.reference(withTransport(to, known))
	if err != nil {
		return err
	}
	return a.transfer(t, src, dst)
}

func (a *app) copyImage(t *transfer, from, to string) error {
	src, err := a.reference(from)
	if err != nil {
		return err
	}
	dst, err := a.reference(to)
	if err != nil {
		return err
	}
	return a.transfer(t, src, dst)
}

// reference parses TRANSPORT:REFERENCE; containers-storage is the store that is open here.
func (a *app) reference(ref string) (types.ImageReference, error) {
	const local = "containers-storage:"
	if len(ref) > len(local) && ref[:len(local)] == local {
		s, err := a.store()
		if err != nil {
			return nil, err
		}
		r, err := imagestorage.Transport.ParseStoreReference(s, ref[len(local):])
		if err != nil {
			return nil, advise(fmt.Errorf("%s: %w", ref, err), "storagectl images")
		}
		return r, nil
	}
	r, err := alltransports.ParseImageName(ref)
	if err != nil {
		return nil, advise(err, "storagectl copy --help")
	}
	return r, nil
}

func (t *transfer) system() *types.SystemContext {
	sys := &types.SystemContext{
		SignaturePolicyPath: t.policy, AuthFilePath: t.authfile, ArchitectureChoice: t.arch, OSChoice: t.os,
	}
	if t.noTLS {
		sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
		sys.OCIInsecureSkipTLSVerify = true
	}
	return sys
}

func (a *app) transfer(t *transfer, src, dst types.ImageReference) error {
	ctx := context.Background()
	sys := t.system()
	policy, err := signature.DefaultPolicy(sys)
	if err != nil {
		return advise(fmt.Errorf("read the signature policy: %w", err), "man containers-policy.json")
	}
	obey, err := signature.NewPolicyContext(policy)
	if err != nil {
		return fmt.Errorf("read the signature policy: %w", err)
	}
	defer func() { _ = obey.Destroy() }()
	o := &copy.Options{SourceCtx: sys, DestinationCtx: sys}
	if t.all {
		o.ImageListSelection = copy.CopyAllImages
	}
	stop := a.watch(o)
	digest, err := copyOnce(ctx, obey, dst, src, o)
	stop()
	if err != nil {
		return advise(err, "storagectl images")
	}
	v := transferAnswer{Source: transports.ImageName(src), Destination: transports.ImageName(dst), Digest: digest}
	cells := []string{row("Source", v.Source), row("Destination", v.Destination), row("Digest", v.Digest)}
	if dst.Transport().Name() == imagestorage.Transport.Name() {
		if _, stored, err := imagestorage.ResolveReference(dst); err == nil {
			v.ID = stored.ID
			cells = append(cells, row("Image", v.ID))
		}
	}
	if t.quiet {
		return nil
	}
	return a.answer(v, "", cells)
}

func copyOnce(ctx context.Context, obey *signature.PolicyContext, dst, src types.ImageReference, o *copy.Options) (string, error) {
	b, err := copy.Image(ctx, obey, dst, src, o)
	if err != nil {
		var denied signature.PolicyRequirementError
		if errors.As(err, &denied) {
			return "", refused(err)
		}
		return "", err
	}
	d, err := manifest.Digest(b)
	return d.String(), err
}

// A progressLine is one line of --progress json.
type progressLine struct {
	Event string `json:"event"`
	Blob  string `json:"blob"`
	Bytes uint64 `json:"bytes"`
	Total int64  `json:"total"`
}

// watch shows the progress of a copy in the way that was asked for. The returned function ends it.
func (a *app) watch(o *copy.Options) func() {
	show := a.progress
	if show == "auto" && !isTerminal(a.errOut) {
		show = "none"
	}
	if show == "none" {
		return func() {}
	}
	events := make(chan types.ProgressProperties, 64)
	o.Progress, o.ProgressInterval = events, 100*time.Millisecond
	done := make(chan struct{})
	go func() {
		defer close(done)
		if show == "json" {
			printLines(a.errOut, events)
			return
		}
		printBars(a.errOut, events)
	}()
	return func() { close(events); <-done }
}

func printLines(w io.Writer, events <-chan types.ProgressProperties) {
	names := map[types.ProgressEvent]string{
		types.ProgressEventNewArtifact: "new", types.ProgressEventRead: "read", types.ProgressEventDone: "done", types.ProgressEventSkipped: "known",
	}
	e := json.NewEncoder(w)
	for p := range events {
		_ = e.Encode(progressLine{Event: names[p.Event], Blob: p.Artifact.Digest.String(), Bytes: p.Offset, Total: p.Artifact.Size})
	}
}

func printBars(w io.Writer, events <-chan types.ProgressProperties) {
	bars := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	open := map[string]*mpb.Bar{}
	for p := range events {
		id := p.Artifact.Digest.String()
		bar := open[id]
		if bar == nil {
			bar = bars.AddBar(max(p.Artifact.Size, 0),
				mpb.PrependDecorators(decor.Name(short(p.Artifact.Digest.Encoded())+" ")),
				mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f")))
			open[id] = bar
		}
		switch p.Event {
		case types.ProgressEventDone, types.ProgressEventSkipped:
			bar.SetTotal(-1, true)
		default:
			bar.SetCurrent(int64(p.Offset))
		}
	}
	for _, bar := range open {
		if !bar.Completed() {
			bar.Abort(false)
		}
	}
	bars.Wait()
}
