package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"

	_ "github.com/ostree-storage/ostree-storage/plugin" // the driver
)

// driverName is the only driver that this program knows, whatever storage.conf says.
const driverName = "ostree"

// An app is one run of the program: where the store is, and how to answer.
type app struct {
	root, runroot string
	storageOpts   []string
	format        string // table or json
	progress      string // auto, none or json
	out, errOut   io.Writer
	opened        storage.Store
}

// run runs the program with the given arguments and returns its exit code.
func run(args []string, out, errOut io.Writer) int {
	a := &app{out: out, errOut: errOut}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := errors.Join(root.Execute(), a.close())
	if err != nil {
		fmt.Fprintf(errOut, "storagectl: %v\n", err)
	}
	return exitCode(err)
}

// command makes the tree of commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "storagectl",
		Short:         "Look at, check and keep the images of the ostree graph driver",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return a.checkFlags()
		},
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.root, "root", "", "graphroot (default: as storage.conf says)")
	flags.StringVar(&a.runroot, "runroot", "", "runroot (default: as storage.conf says)")
	flags.StringArrayVar(&a.storageOpts, "storage-opt", nil, "an option of the driver, as key=value")
	flags.StringVar(&a.format, "format", "table", "how to answer: table or json")
	flags.StringVar(&a.progress, "progress", "auto", "progress of long work on standard error: auto, none or json")
	root.AddCommand(a.statusCommand(), a.imagesCommand(), a.layersCommand(), a.versionCommand())
	return root
}

func (a *app) checkFlags() error {
	if a.format != "table" && a.format != "json" {
		return fmt.Errorf("--format %s: use table or json", a.format)
	}
	if a.progress != "auto" && a.progress != "none" && a.progress != "json" {
		return fmt.Errorf("--progress %s: use auto, none or json", a.progress)
	}
	return nil
}

// options are the options with which containers/storage is opened: storage.conf's, then those of the command line.
func (a *app) options() (types.StoreOptions, error) {
	o, err := storage.DefaultStoreOptions()
	if err != nil {
		return o, fmt.Errorf("read storage.conf: %w", err)
	}
	o.GraphDriverName = driverName
	if a.root != "" {
		o.GraphRoot = a.root
	}
	if a.runroot != "" {
		o.RunRoot = a.runroot
	}
	if len(a.storageOpts) > 0 {
		o.GraphDriverOptions = a.storageOpts
	}
	return o, nil
}

// store opens the store, once. An ordinary user gets his own, inside a user namespace.
func (a *app) store() (storage.Store, error) {
	if a.opened != nil {
		return a.opened, nil
	}
	if os.Geteuid() != 0 {
		unshare.MaybeReexecUsingUserNamespace(false)
	}
	o, err := a.options()
	if err != nil {
		return nil, err
	}
	s, err := storage.GetStore(o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.GraphRoot, err)
	}
	a.opened = s
	return s, nil
}

func (a *app) close() error {
	if a.opened == nil {
		return nil
	}
	s := a.opened
	a.opened = nil
	if _, err := s.Shutdown(false); err != nil && !errors.Is(err, storage.ErrLayerUsedByContainer) {
		return fmt.Errorf("close store: %w", err)
	}
	return nil
}
