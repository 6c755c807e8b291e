package main

import (
	"runtime/debug"

	"github.com/spf13/cobra"
)

type versionAnswer struct {
	Version string `json:"version"`
	Storage string `json:"containers_storage"`
	Image   string `json:"containers_image"`
	Go      string `json:"go"`
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of what it is built with",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versionAnswer{Version: "unknown"}
			if build, ok := debug.ReadBuildInfo(); ok {
				v.Version, v.Go = build.Main.Version, build.GoVersion
				for _, dependency := range build.Deps {
					switch dependency.Path {
					case "go.podman.io/storage":
						v.Storage = dependency.Version
					case "go.podman.io/image/v5":
						v.Image = dependency.Version
					}
				}
			}
			return a.answer(v, "", []string{
				row("storagectl", v.Version), row("containers/storage", v.Storage), row("containers/image", v.Image), row("go", v.Go),
			})
		},
	}
}
