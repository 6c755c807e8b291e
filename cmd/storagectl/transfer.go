package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// A transfer is one copy of an image.
type transfer struct {
	policy   string // signature policy file
	authfile string
	noTLS    bool
	all      bool // all images of a list
	arch     string
	os       string
	quiet    bool
}

type transferAnswer struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Digest      string `json:"digest"`
	ID          string `json:"id,omitempty"`
}

func (t *transfer) flags(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.StringVar(&t.policy, "signature-policy", "", "policy.json to obey (default: the host's, as podman)")
	f.StringVar(&t.authfile, "authfile", "", "file with the credentials for registries")
	f.BoolVar(&t.noTLS, "no-tls-verify", false, "talk to registries without TLS or with unknown certificates")
	f.StringVar(&t.arch, "arch", "", "architecture to choose from a list of images")
	f.StringVar(&t.os, "os", "", "operating system to choose from a list of images")
	return c
}

func (a *app) pullCommand() *cobra.Command {
	t := &transfer{}
	return t.flags(&cobra.Command{
		Use:   "pull [TRANSPORT:]IMAGE [NAME]",
		Short: "Bring an image into the store",
		Long: `Copies an image into the store. Without a transport, it comes from a registry: docker.io unless the name says another.
Transports are those of containers/image: docker://, oci:, oci-archive:, docker-archive:, dir:. NAME is what the image is called in
the store; without it, the name in the source.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			to := ""
			if len(args) == 2 {
				to = args[1]
			}
			return a.pull(t, args[0], to)
		},
	})
}

func (a *app) pushCommand() *cobra.Command {
	t := &transfer{}
	c := t.flags(&cobra.Command{
		Use:   "push IMAGE [TRANSPORT:]DESTINATION",
		Short: "Copy an image of the store, pinned ones too, somewhere else",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			to := args[0]
			if len(args) == 2 {
				to = args[1]
			}
			return a.push(t, args[0], to)
		},
	})
	return c
}

func (a *app) copyCommand() *cobra.Command {
	t := &transfer{}
	c := t.flags(&cobra.Command{
		Use:   "copy TRANSPORT:SOURCE TRANSPORT:DESTINATION",
		Short: "Copy an image from anywhere to anywhere",
		Long: `Copies an image between any two places that containers/image knows. containers-storage:NAME is an image of this store,
with --root and its like as given.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error { return a.copyImage(t, args[0], args[1]) },
	})
	c.Flags().BoolVar(&t.all, "all", false, "all images of a list, not only this machine's")
	return c
}

// withTransport makes a registry reference of what has no transport.
func withTransport(ref string, known func(string) bool) string {
	if head, _, ok := strings.Cut(ref, ":"); ok && known(head) {
		return ref
	}
	return "docker://" + ref
}

// storedName is what an image from a source is called in the store.
func storedName(source string) (string, error) {
	transport, rest, _ := strings.Cut(source, ":")
	rest = strings.TrimPrefix(rest, "//")
	switch transport {
	case "docker":
		return completed(rest), nil
	case "oci", "oci-archive", "docker-archive":
		// path[:name]
		if i := strings.IndexByte(rest, ':'); i >= 0 && rest[i+1:] != "" {
			return completed(localName(rest[i+1:])), nil
		}
	case "containers-storage":
		return completed(rest), nil
	}
	return "", advise(fmt.Errorf("%s does not say what the image is called", source), "storagectl pull %s NAME", source)
}

// localName puts a name without a registry under localhost/.
func localName(name string) string {
	head, _, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(head, ".:") || head == "localhost") {
		return name
	}
	return "localhost/" + name
}
