package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.podman.io/storage"

	"github.com/ostree-storage/ostree-storage/layers"
)

// An app is one run of the program: where the store is, and how to answer.
type app struct {
	root, runroot string
	storageOpts   []string
	format        string // table or json
	progress      string // auto, none or json
	lockTimeout   time.Duration
	withoutPins   bool // the pinned store was open to be changed: containers/storage does not let one process have it as a read-only one too
	out, errOut   io.Writer
	answered      bool // a document was printed
	code          int  // exit code of a run without an error

	opened storage.Store
	homes  layers.Catalogs // read-only, our own first
	keep   bool            // a mount of the driver's is to outlive this process, so that it is not to clean up
	looked bool            // the lists of layers were looked at and nothing else: containers/storage, which would read them for it, has nothing to clean up
}

// run runs the program with the given arguments and returns its exit code.
func run(args []string, out, errOut io.Writer) int {
	a := &app{out: out, errOut: errOut}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	err := errors.Join(root.Execute(), a.close())
	if err == nil {
		return a.code
	}
	if i := slices.Index(args, "--format"); slices.Contains(args, "--format=json") || i >= 0 && i+1 < len(args) && args[i+1] == "json" {
		a.format = "json" // cobra reads no flags of a command that it does not know
	}
	return a.fail(err)
}

// command makes the tree of commands.
func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "storagectl",
		Short: "Look at, check and keep the images of the ostree graph driver",
		Long: `storagectl looks at, checks and keeps the images of the ostree graph driver.

It opens the store that podman opens: storage.conf, --root, --runroot and --storage-opt mean what they mean there. The driver is
always ostree. An ordinary user gets his own store, in his user namespace.

IMAGE is a name as the store has it, or as podman would complete it (localhost/, docker.io/library/, :latest), an id, the beginning
of an id, or a digest.

Exit codes: 0 fine, 1 error, 2 damage found, 3 repaired, 4 refused, 5 no space, 6 busy.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return a.checkFlags()
		},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return advise(err, "%s --help", c.CommandPath())
	})
	flags := root.PersistentFlags()
	flags.StringVar(&a.root, "root", "", "graphroot (default: as storage.conf says)")
	flags.StringVar(&a.runroot, "runroot", "", "runroot (default: as storage.conf says)")
	flags.StringArrayVar(&a.storageOpts, "storage-opt", nil, "an option of the driver, as key=value; may be repeated")
	flags.StringVar(&a.format, "format", "table", "how to answer: table or json")
	flags.StringVar(&a.progress, "progress", "auto", "progress of long work on standard error: auto (a bar on a terminal), none or json")
	flags.DurationVar(&a.lockTimeout, "lock-timeout", time.Minute, "how long to wait for another process that changes the pinned store")
	root.AddCommand(
		a.statusCommand(), a.again(a.imagesCommand()), a.again(a.layersCommand()), a.again(a.duCommand()),
		a.lsCommand(), a.catCommand(), a.again(a.showCommand()), a.again(a.logCommand()), a.again(a.diffCommand()),
		a.checkoutCommand(), a.mountCommand(), a.umountCommand(),
		a.gcCommand(), a.checkCommand(), a.repairCommand(),
		a.pullCommand(), a.pushCommand(), a.copyCommand(),
		a.manCommand(), a.versionCommand(),
	)
	for _, more := range moreCommands {
		root.AddCommand(more(a))
	}
	return root
}

// moreCommands are commands that other files add.
var moreCommands []func(*app) *cobra.Command

func (a *app) checkFlags() error {
	if a.format != "table" && a.format != "json" {
		format := a.format
		a.format = "table"
		return advise(fmt.Errorf("--format %s: use table or json", format), "storagectl --help")
	}
	if a.progress != "auto" && a.progress != "none" && a.progress != "json" {
		return advise(fmt.Errorf("--progress %s: use auto, none or json", a.progress), "storagectl --help")
	}
	return nil
}
