# Each target is a line that a person could type. `make test` is what README names and what CI runs.
export CGO_ENABLED ?= 0
export GOFLAGS ?= -mod=mod -tags=containers_image_openpgp,exclude_graphdriver_btrfs
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
LEGACY = plugin/legacy
CRI = integration/cri

.PHONY: build test test-rooms test-legacy race check upstream demo bench powercut soak soak-vm fuzz vectors fixtures programs clean

build: ## every package, and build/bin/storagectl
	go build ./...
	go build -o build/bin/ ./cmd/storagectl
	cd $(LEGACY) && go build ./...

test: ## everything that CI checks, in under ten minutes once the programs are built
	hack/deps
	$(MAKE) build check programs
	$(MAKE) -j2 test-rooms test-legacy
	@cat build/not-run/* 2>/dev/null || : # which ways to lose an image were run, and which not

test-rooms: # what takes longest begins first; it waits more than it computes, so that there is room beside it
	go test -p 3 -timeout 40m ./integration ./...

test-legacy:
	cd $(LEGACY) && go test -timeout 20m ./...

race: ## the rooms that have goroutines, under the race detector (needs gcc)
	CGO_ENABLED=1 go test -race -short -timeout 15m ./store/... ./layers/... ./internal/... ./driver/...

check: ## vet, staticcheck
	go vet ./...
	cd $(LEGACY) && go vet ./...
	cd $(CRI) && GOFLAGS=-mod=mod go vet ./...
	go run $(STATICCHECK) ./...

upstream: ## containers/storage's own tests of its command, with the driver and beside the overlay driver
	hack/deps
	hack/build-containers-storage
	go run ./hack/upstream

fixtures: ## make the images of the tests a second time; the same packages must give the same layers
	go run ./hack/fixtures -verify

programs: ## podman, buildah, skopeo and both containers-storage CLIs with the driver, into build/bin
	hack/build-programs

demo: ## two real images and a container of each, with --storage-driver=ostree
	hack/demo

bench: ## beside the overlay driver, at most 15 minutes
	hack/deps
	go run ./hack/bench

powercut: ## real programs while the power goes, and killed: POWERCUTS (default 100) times on ext4 and on xfs
	hack/deps
	$(MAKE) programs
	POWERCUTS=$${POWERCUTS:-100} go test -count=1 -timeout 80m -v ./integration/powercut

soak: ## the differential harness, the stress tests and power cuts for SOAK (default 30m) each, and every cut and fault
	SOAK=$${SOAK:-30m} go test -count=1 -timeout 0 ./integration/differential/... ./integration/powercut ./store/... ./layers/... ./pins ./plugin ./cmd/storagectl
	SOAK=$${SOAK:-30m} go test -count=1 -timeout 0 -run "FullDisk|Space|AsOverlay|CheckoutLabels" ./integration

soak-vm: ## every state of the disk during pulls and a removal, in a virtual machine with dm-log-writes
	hack/deps
	hack/soak-vm

fuzz: ## every fuzz target for FUZZTIME (default 30s) each
	hack/fuzz

vectors: ## compare the golden vectors with the real ostree
	go run ./hack/vectors

clean:
	rm -rf build
