# What the project is built and tested with. `make help` lists the targets.
# A Go from 1.21 on fetches the one that go.mod names, also where it is set not to by default.
export GOTOOLCHAIN ?= auto

# Empty without a tag: Go then records the commit and its time, by which builds can be ordered.
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null)
GOBUILD  = CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

# Debian and Ubuntu packages, each for what is named.
QEMU_amd64 = qemu-system-x86
QEMU_arm64 = qemu-system-arm
QEMU       = $(QEMU_$(shell dpkg --print-architecture 2>/dev/null))
DEMO_DEPS  = $(QEMU) busybox-static kmod tar xz-utils zstd
TEST_DEPS  = bash-completion bind9-dnsutils busybox-static cpio curl dnsmasq-base gcc git iperf3 iproute2 iptables libc6-dev nftables openssh-client openssh-server openssl python3-pyftpdlib rsync util-linux xorriso
VM_DEPS    = $(DEMO_DEPS) e2fsprogs mmdebstrap
E2E_DEPS   = $(VM_DEPS) dbus dnsmasq-base iptables libvirt-clients \
             libvirt-daemon-driver-qemu libvirt-daemon-system openssh-client virtinst
BENCH_DEPS = gcc iperf3 libc6-dev openssh-client openssh-server socat util-linux

.PHONY: help go build test lint fresh hostile e2e e2e-vsock demo bench bench-vsock bench-detect deps clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

go:
	@sh test/go.sh

build: go ## both agents to bin/, static, for this machine and for amd64 and arm64
	$(GOBUILD) -o bin/ ./agent-host/cmd/rum-host-agent ./agent-guest/cmd/rum-guest-agent
	for arch in amd64 arm64; do for agent in host guest; do \
		GOARCH=$$arch $(GOBUILD) -o bin/rum-$$agent-agent-linux-$$arch ./agent-$$agent/cmd/rum-$$agent-agent || exit; \
	done; done

# The integration tests run alone: some of them measure what gets lost under load.
# They build the agents themselves, so that no result can be kept for next time.
test: go ## unit and namespace tests, with the race detector; needs no VM
	@sh test/deps.sh $(TEST_DEPS)
	@sh test/promtool.sh
	go test -race -timeout 10m $(TESTFLAGS) $$(go list ./... | grep -v /test/integration)
	go test -race -count=1 -timeout 10m $(TESTFLAGS) ./test/integration

lint: go ## gofmt, vet and staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go vet ./...
	go vet -tags e2e,e2evsock ./test/...
	go tool staticcheck -tags e2e,e2evsock ./...

fresh: ## README's two commands on a bare Debian with only Go, make and git; as root, ten minutes
	@sh test/fresh.sh

hostile: build ## a guest that hates its host, beside an honest one; as root
	@sh test/deps.sh iproute2
	go build -o bin/rum-hostile ./test/hostile
	bin/rum-hostile $(HOSTILEFLAGS)

e2e: build ## tests in real VMs; as root
	go test -tags e2e -count=1 -p 2 -timeout 55m -v ./test/vm/... ./test/e2e/...
	go test -tags e2e -count=1 -timeout 10m -v -run Gibibyte ./tunnel

e2e-vsock: build ## real vsock, with a VM in a VM; as root, about five minutes
	go test -tags e2evsock -count=1 -timeout 45m -v ./test/e2e/vsock

demo: build ## a VM whose web server appears on localhost:8080
	@sh test/deps.sh $(DEMO_DEPS)
	@go build -o bin/rum-demo ./test/demo
	@bin/rum-demo

bench: build ## relays side by side; as root
	@sh test/deps.sh $(BENCH_DEPS)
	go run ./test/bench --bin bin

bench-vsock: build ## the same over real vsock, in a VM and a VM in it; as root
	@sh test/deps.sh $(BENCH_DEPS) $(VM_DEPS)
	go run ./test/bench/vsock $(BENCHFLAGS)

bench-detect: build ## how soon a port of a guest is there on the host, and gone; as root, an hour
	@sh test/deps.sh iproute2 util-linux
	CGO_ENABLED=0 go run ./test/bench/detect --bin bin $(BENCHFLAGS)

deps: ## install the packages that test, e2e and demo need
	@sh test/deps.sh $(TEST_DEPS) $(E2E_DEPS)
	@sh test/promtool.sh

clean: ## remove what build made
	rm -rf bin
