// Package legacy registers the `ostree` graph driver with github.com/containers/storage, the older path of the module that
// package plugin registers it with. A program takes it with one blank import:
//
//	import _ "github.com/ostree-storage/ostree-storage/plugin/legacy"
//
// It compiles against v1.59 as it is, against v1.57 and v1.58 with the build tag containers_storage_1_57, and against v1.43 to
// v1.56 with the tag containers_storage_1_43. adapter.go, errors.go and register.go are package plugin's but for the
// import path; the surface files hold what differs from version to version.
package legacy
