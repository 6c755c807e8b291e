module github.com/ostree-storage/ostree-storage/plugin/legacy

go 1.25.0

require (
	github.com/containers/storage v1.59.1
	github.com/ostree-storage/ostree-storage v0.0.0
)

require (
	github.com/docker/go-units v0.5.0 // indirect
	github.com/json-iterator/go v1.1.12 // indirect
	github.com/klauspost/compress v1.19.1 // indirect
	github.com/klauspost/pgzip v1.2.6 // indirect
	github.com/moby/sys/capability v0.4.0 // indirect
	github.com/moby/sys/mountinfo v0.7.2 // indirect
	github.com/moby/sys/user v0.4.1 // indirect
	github.com/modern-go/concurrent v0.0.0-20180306012644-bacd9c7ef1dd // indirect
	github.com/modern-go/reflect2 v1.0.3-0.20250322232337-35a7c28c31ee // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/runtime-spec v1.3.0 // indirect
	github.com/opencontainers/selinux v1.15.1 // indirect
	github.com/sirupsen/logrus v1.9.4 // indirect
	github.com/ulikunitz/xz v0.5.16 // indirect
	github.com/vbatts/tar-split v0.12.3 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace (
	// v1.59.1 of containers/storage calls securejoin.OpenInRoot, which later versions lack.
	github.com/cyphar/filepath-securejoin => github.com/cyphar/filepath-securejoin v0.5.1
	github.com/ostree-storage/ostree-storage => ../..
)
