# What the hack/build-* scripts share: a private view of Debian's archive, and Go trees made from
# Debian's source packages. Sourced, never run. Nothing here changes the system's own apt sources;
# the mirror is the one that this machine's apt already uses.
#
#   build/bin/PROGRAM            what was built
#   build/bin/PROGRAM.version    one line: program, version, and the storage module it is linked with
#   .cache/programs/SUITE/       apt lists, packages and the unpacked Go tree of one Debian suite

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$root/build/bin
module=github.com/ostree-storage/ostree-storage
# No tag for SELinux, AppArmor, systemd or libsubid: they need C libraries and add nothing to storage.
tags="containers_image_openpgp exclude_graphdriver_btrfs btrfs_noversion exclude_graphdriver_devicemapper seccomp"
log=/dev/null

export PATH="$PATH:/usr/local/go/bin"
export GOTOOLCHAIN=local DEBIAN_FRONTEND=noninteractive LC_ALL=C
unset GOFLAGS CGO_ENABLED

say() { echo "${0##*/}: $*"; }
die() { echo "${0##*/}: $*" >&2; exit 1; }

# quietly COMMAND...: shows the command's output only if it fails.
quietly() {
	local output status=0
	output=$("$@" 2>&1) || status=$?
	((status == 0)) && return 0
	printf '%s\n' "$output" | tail -n "${TAIL:-60}" >&2
	die "exit status $status: $*"
}

# only_one NAME: waits until no other run of the same script is under way.
only_one() {
	mkdir -p "$root/.cache/programs" "$bin"
	exec 9>"$root/.cache/programs/$1.lock"
	flock 9
}

# need COMMAND|FILE=PACKAGE...: installs what is missing.
need() {
	local pair probe missing=()
	for pair in "$@"; do
		probe=${pair%%=*}
		if [[ $probe == /* ]]; then [[ -e $probe ]]; else command -v "$probe" >/dev/null; fi || missing+=("${pair#*=}")
	done
	((${#missing[@]})) || return 0
	((EUID == 0)) || die "as root: apt-get install ${missing[*]}"
	(
		flock 8
		# Lists on a new machine may be absent or old.
		apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && exit 0
		quietly apt-get update -qq
		quietly apt-get install -y -qq --no-install-recommends "${missing[@]}"
	) 8>"$root/.cache/programs/apt.lock"
}

# archive security|main: the address of Debian's archive as this machine's apt has it.
archive() {
	local address
	address=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Identifier: Packages' |
		awk -v want="$1" '{ security = ($1 ~ /-security$/) ? "security" : "main" } security == want && /debian/ { print $2; exit }')
	[[ -n $address || $1 == security ]] || die "apt on this machine has no Debian archive configured"
	echo "$address"
}

# view SUITE: a private apt view with the binary and source lists of one suite. Sets apt=(…) for apt-get calls.
view() {
	local suite=$1 main security options line
	place=$root/.cache/programs/$suite
	mkdir -p "$place"/{lists/partial,archives/partial,debs,gopath}
	: >"$place/status" # an empty one: packages of this machine's release must not satisfy another's dependencies
	main=$(archive main) security=$(archive security)
	options="[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
	{
		echo "$options $main $suite main"
		if [[ $suite == bookworm ]]; then
			echo "$options $main $suite-updates main"
			[[ -z $security ]] || echo "$options $security $suite-security main"
		fi
	} | while read -r line; do echo "deb $line" && echo "deb-src $line"; done >"$place/sources.list"
	apt=(-qq -o "Dir::Etc::sourcelist=$place/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::lists=$place/lists" -o "Dir::State::status=$place/status" -o "Dir::Cache::archives=$place/archives"
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root -o Acquire::Languages=none
		-o Acquire::Check-Valid-Until=false -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false)
}

# source_tree PACKAGE IMPORTPATH: unpacks the newest version of a Debian source package as GOPATH source.
source_tree() {
	local package=$1 target=$place/first/src/$2
	rm -rf "$place/source-$package" "$target"
	mkdir -p "$place/source-$package" "${target%/*}"
	(cd "$place/source-$package" && quietly apt-get "${apt[@]}" source --download-only --only-source "$package")
	quietly dpkg-source --no-check -x "$place/source-$package"/*.dsc "$target"
	dpkg-parsechangelog -l "$target/debian/changelog" -S Version >"$place/$package.version"
	rm -rf "$place/source-$package"
}

# unpack_packages NAME...: downloads Go library packages and adds them to the suite's GOPATH.
unpack_packages() {
	local package
	for package; do
		compgen -G "$place/debs/${package}_*.deb" >/dev/null || echo "$package"
	done | (cd "$place/debs" && xargs -r -n 40 -P 3 apt-get "${apt[@]}" download) >/dev/null 2>"$place/download.log" ||
		{ cat "$place/download.log" >&2; die "download of Go packages"; }
	for package; do
		[[ -e $place/gopath/.have/$package ]] || echo "$package"
	done | xargs -r -P 2 -I@ sh -c '
		set -e
		dpkg-deb --fsys-tarfile "$1"/debs/@_*.deb | tar -x -C "$1/gopath" --no-same-owner --exclude=testdata --exclude="*_test.go" --exclude="./usr/share/doc" --exclude="./usr/bin" --exclude="./usr/lib"
		mkdir -p "$1/gopath/.have" && : >"$1/gopath/.have/@"
	' sh "$place" >"$place/unpack.log" 2>&1 || { cat "$place/unpack.log" >&2; die "unpack Go packages"; }
}

# build_dependencies SOURCE...: the Go library packages that Debian would install to build these.
build_dependencies() {
	apt-get "${apt[@]}" -s build-dep --no-install-recommends "$@" | awk '/^Inst golang-.*-dev /{print $2}' | sort -u
}

# used_packages: of the packages unpacked, those that the last go list named (import directories on stdin).
used_packages() {
	local deb
	sort -u >"$place/used"
	for deb in "$place"/debs/*.deb; do
		dpkg-deb -c "$deb" | sed -nE 's#^.* \./usr/share/gocode/src/(.*)/[^/]*\.(go|s|h|c)( -> .*)?$#\1#p' | sort -u |
			comm -12 - "$place/used" >"$place/used.here"
		deb=${deb##*/}
		[[ ! -s $place/used.here ]] || echo "${deb%%_*}"
	done | sort -u
}

# gopath_go ARGS...: the go command in GOPATH mode: the driver's tree first, then the program's, then Debian's.
gopath_go() {
	GO111MODULE=off CGO_ENABLED=1 GOPATH="$place/own:$place/first:$place/gopath/usr/share/gocode" go "$@"
}

# own_tree PLUGIN MODULE...: makes the GOPATH entry of the driver, PLUGIN and the modules that they import and that
# Debian's tree lacks a package of, or has too old: the MODULEs named. They are taken whole: two versions do not mix.
own_tree() {
	local plugin=$1 old=" ${*:2} " path directory dependency from target have=$place/gopath/usr/share/gocode/src
	local -A taken=()
	(
		cd "$root"
		CGO_ENABLED=1 GOFLAGS=-mod=mod go list -deps -tags "$tags" \
			-f '{{if not .Standard}}{{.ImportPath}} {{.Dir}} {{.Module.Path}} {{.Module.Dir}}{{end}}' ./driver/...
		echo "$module/$plugin $root/$plugin $module $root"
	) >"$place/own.list" || die "the driver's packages cannot be listed"
	rm -rf "$place/own"
	while read -r path directory dependency from; do
		target=$place/own/src
		if [[ $dependency == "$module" ]]; then
			mkdir -p "$target/$path"
			find "$directory" -maxdepth 1 -name '*.go' ! -name '*_test.go' -exec cp -t "$target/$path" {} +
		elif [[ -z ${taken[$dependency]-} && ($old == *" $dependency "* || ! -d $have/$path) ]]; then
			taken[$dependency]=$from
			mkdir -p "$target/$dependency"
			tar -C "$from" --exclude=testdata --exclude='*_test.go' --exclude=vendor --mode=u+w -cf - . | tar -C "$target/$dependency" -xf -
		fi
	done <"$place/own.list"
	# A directory of ours that only leads to others would hide Debian's package of that path.
	(cd "$place/own/src" && find . -type d) | while read -r path; do
		if ! compgen -G "$place/own/src/$path/*.go" >/dev/null && compgen -G "$have/$path/*.go" >/dev/null; then
			cp "$have/$path"/*.go "$place/own/src/$path/"
		fi
	done
}

# own_key: one checksum over the driver's sources, these scripts and the Go version.
own_key() {
	{
		go env GOVERSION
		echo "${EXTRA_TAGS:-} $tags"
		cd "$root"
		find driver layers store selinux internal plugin go.mod go.sum hack -type f \
			\( -name '*.go' ! -name '*_test.go' ! -path 'hack/*' ! -path 'internal/testfs/*' -o -name 'go.*' -o -path 'hack/build-*' \) -print0 |
			sort -z | xargs -0 sha256sum
	} | sha256sum | cut -d' ' -f1
}

# fresh KEY PROGRAM...: whether all of them are built from this state.
fresh() {
	local key=$1 program
	shift
	for program; do
		[[ -x $bin/$program && $(cat "$bin/.$program.key" 2>/dev/null) == "$key" ]] || return 1
	done
}

# package_version NAME: the version of a library package in use.
package_version() {
	dpkg-deb -f "$place/debs/$1"_*.deb Version
}

# built PROGRAM KEY TEXT: records what was built, and says so.
built() {
	echo "$3" >"$bin/$1.version"
	echo "$2" >"$bin/.$1.key"
	say "built build/bin/$1: $3"
}

# blank_import DIRECTORY PACKAGE: the one file that the program gets.
blank_import() {
	cat >"$1/ostree_driver.go" <<-EOF
		//go:debug default=go1.26

		package main

		import _ "$2"
	EOF
}
