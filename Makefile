# What the project is built and tested with. `make help` lists the targets.
# A Go from 1.21 on fetches the one that go.mod names, also where it is set not to by default.
export GOTOOLCHAIN ?= auto
# Where go.dev has a Go put, which is not among the places that sudo looks at.
export PATH := $(PATH):/usr/local/go/bin

# Empty without a tag: Go then records the commit and its time, by which builds can be ordered.
# Sources without git have the newest version of the changelog.
VERSION ?= $(shell if [ -e .git ]; then git describe --tags --dirty 2>/dev/null; else sed -n 's/^## \[\([0-9][^]]*\)\].*/v\1/p' CHANGELOG.md | head -n 1; fi)
# What all files of packages are of: the commit's time, and without git that which an archive of the sources has for a file.
SOURCE_DATE_EPOCH ?= $(shell { [ -e .git ] && git log -1 --format=%ct 2>/dev/null; } || stat -c %Y CHANGELOG.md)
# Whatever the builder's own settings of Go say: of the same commit come the same files, and they know it.
BUILDVCS := $(shell git status --porcelain >/dev/null 2>&1 && [ -e .git ] && echo true || echo false)
GOBUILD  = CGO_ENABLED=0 GOAMD64=v1 GOARM64=v8.0 go build -buildvcs=$(BUILDVCS) -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

# Debian and Ubuntu packages, each for what is named.
QEMU_amd64 = qemu-system-x86
QEMU_arm64 = qemu-system-arm
QEMU       = $(QEMU_$(shell dpkg --print-architecture 2>/dev/null))
DEMO_DEPS  = $(QEMU) busybox-static kmod tar xz-utils zstd
TEST_DEPS  = bash-completion bind9-dnsutils busybox-static cpio curl dnsmasq-base gcc git iperf3 iproute2 iptables libc6-dev mksh nftables openssh-client openssh-server openssl python3 python3-pyftpdlib rsync util-linux xorriso
VM_DEPS    = $(DEMO_DEPS) e2fsprogs mmdebstrap
E2E_DEPS   = $(VM_DEPS) chromium dbus dnsmasq-base iptables libvirt-clients \
             libvirt-daemon-driver-qemu libvirt-daemon-system openssh-client virtinst
BENCH_DEPS = gcc iperf3 libc6-dev openssh-client openssh-server socat util-linux

# What a package calls the version: of v0.3.0-5-gabc, 0.3.0+5.gabc; of v0.3.0-rc1, 0.3.0~rc1, which comes before 0.3.0; without a tag,
# the commit, or its time alone, after 0.0.0. A dash would begin a packager's own number, and rpm takes none.
PACKAGE_VERSION ?= $(or $(shell printf '%s' '$(VERSION)' | sed -E 's/^v//; s/-([0-9]+)-(g[0-9a-f]+)/+\1.\2/; s/-dirty$$/.dirty/; s/-/~/g'),0.0.0~$(shell date -u -d @$(SOURCE_DATE_EPOCH) +%Y%m%d%H%M%S)$(shell [ ! -e .git ] || git log -1 --format=.%h 2>/dev/null))
ARCH            ?= $(shell PATH='$(PATH)' go env GOARCH)
PREFIX          ?= /usr/local
PACKAGES        ?= bin
NFPM             = SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) PACKAGE_VERSION='$(PACKAGE_VERSION)' ARCH=$(ARCH) \
                   go run -modfile=tools/go.mod github.com/goreleaser/nfpm/v2/cmd/nfpm package

.PHONY: help go known-arch known-prefix build test lint docs docs-check fresh hostile e2e e2e-vsock demo bench bench-vsock bench-detect deps stage deb rpm packages-test release release-check stage-install install uninstall clean

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
	go test -race -count=1 -timeout 15m $(TESTFLAGS) ./test/integration

lint: go ## gofmt, vet and staticcheck
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go vet ./...
	go vet -tags e2e,e2evsock ./test/...
	go tool staticcheck -tags e2e,e2evsock ./...

REFERENCE = go run ./packaging/man --reference bin/rum-host-agent bin/rum-guest-agent

docs: build ## docs/reference.md, which has every command and option
	$(REFERENCE) >docs/reference.md

docs-check: build ## documents have every command, option, metric and configuration key, and none that is not there
	$(REFERENCE) | diff -u docs/reference.md -
	go test -count=1 -run 'Document|Architecture|Security|Reference' ./agent-host/cmd/rum-host-agent ./agent-host/config ./agent-host/metrics ./test

fresh: ## README's two commands on a bare Debian with only Go, make and git; as root, a quarter of an hour
	@sh test/fresh.sh

hostile: build ## a guest that hates its host, beside an honest one; as root
	@sh test/deps.sh iproute2
	go build -o bin/rum-hostile ./test/hostile
	bin/rum-hostile $(HOSTILEFLAGS)

e2e: build ## tests in real VMs, and with a browser; as root
	go test -tags e2e -count=1 -p 2 -timeout 55m -v ./test/vm/... ./test/e2e/...

e2e-vsock: build ## real vsock, with a VM in a VM; as root, about five minutes
	go test -tags e2evsock -count=1 -timeout 45m -v ./test/e2e/vsock

demo: build ## a VM whose web server appears on localhost:8080
	@sh test/deps.sh $(DEMO_DEPS)
	@go build -o bin/rum-demo ./test/demo
	@bin/rum-demo

bench: build ## relays side by side; as root
	@sh test/deps.sh $(BENCH_DEPS)
	go build -C test/bench/http3 -o $(CURDIR)/bin/rum-bench-http3 .
	go run ./test/bench --bin bin $(BENCHFLAGS)

bench-vsock: build ## the same over real vsock, on the kernels of three releases and in a VM of a VM; as root, two hours
	@sh test/deps.sh $(BENCH_DEPS) $(VM_DEPS)
	go run ./test/bench/vsock $(VSOCKFLAGS) -- $(BENCHFLAGS)

bench-detect: build ## how soon a port of a guest is there on the host, and gone; as root, an hour
	@sh test/deps.sh iproute2 util-linux
	CGO_ENABLED=0 go run ./test/bench/detect --bin bin $(BENCHFLAGS)

deps: ## install the packages that test, e2e and demo need
	@sh test/deps.sh $(TEST_DEPS) $(E2E_DEPS)
	@sh test/promtool.sh

known-arch:
	@case '$(ARCH)' in amd64|arm64) ;; *) echo "ARCH is '$(ARCH)': the agents are built for amd64 and arm64, so it takes ARCH=amd64 or ARCH=arm64" >&2; exit 1 ;; esac

# Units, shells and sed have it as it is.
known-prefix: export PREFIX := $(PREFIX)
known-prefix:
	@case $$PREFIX in */) echo "PREFIX is '$$PREFIX': it takes a path without a slash at its end" >&2; exit 1 ;; esac
	@case $$PREFIX in /*) ;; *) echo "PREFIX is '$$PREFIX': it takes an absolute path, such as PREFIX=/opt/rum" >&2; exit 1 ;; esac
	@case $$PREFIX in *[!A-Za-z0-9/._+-]*) echo "PREFIX is '$$PREFIX': it takes letters, digits and /._+- alone, since units of systemd have it in them" >&2; exit 1 ;; esac

stage: known-arch build
	for agent in host guest; do SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) PACKAGE_VERSION='$(PACKAGE_VERSION)' sh packaging/stage.sh $$agent $(ARCH) build/$$agent || exit; done

deb: stage ## packages of both agents to bin/, for this machine's architecture or ARCH
rpm: stage ## the same for rpm
deb rpm:
	mkdir -p $(PACKAGES)
	for agent in host guest; do $(NFPM) -f packaging/nfpm.$$agent.yaml -p $@ -t $(PACKAGES)/ || exit; done

packages-test: ## packages are installed, upgraded and purged in a bare Debian, and judged by lintian and rpm; as root
	@sh test/packages.sh

# The tool that lists modules writes its own hash into the list, so it is built without paths.
release: build ## bin/release/: agents and packages for amd64 and arm64, what modules are in them (CycloneDX), SHA256SUMS
	rm -rf bin/release && mkdir -p bin/release
	for arch in amd64 arm64; do $(MAKE) deb rpm ARCH=$$arch PACKAGES=bin/release || exit; done
	install -m 755 bin/rum-*-agent-linux-* bin/release
	go build -trimpath -buildvcs=false -modfile=tools/go.mod -o build/cyclonedx-gomod github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
	for arch in amd64 arm64; do for agent in host guest; do \
		GOARCH=$$arch build/cyclonedx-gomod bin -json -std -noserial -notimestamp -version '$(or $(VERSION),$(PACKAGE_VERSION))' \
			-output bin/release/rum-$$agent-agent-linux-$$arch.cdx.json bin/rum-$$agent-agent-linux-$$arch || exit; \
	done; done
	cd bin/release && export LC_ALL=C && sha256sum rum-* >SHA256SUMS

release-check: ## make release twice in different directories gives the same files
	@sh test/release.sh

stage-install: known-prefix known-arch build
	SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) sh packaging/stage.sh host $(ARCH) build/install '$(PREFIX)'
	@# Whoever used sudo builds here again without.
	[ -z "$$SUDO_UID" ] || chown -R "$$SUDO_UID:$$SUDO_GID" bin build

install: stage-install ## the host agent to PREFIX (/usr/local), with units, manual and completions; DESTDIR goes before that
	umask 022 && mkdir -p '$(DESTDIR)/' && cp -rf build/install/. '$(DESTDIR)/' # in place of an agent that runs, too
	@# The group of the system's unit; whoever installs for one user, or for a package, does without.
	[ -n '$(DESTDIR)' ] || [ "$$(id -u)" != 0 ] || ! command -v systemd-sysusers >/dev/null || systemd-sysusers '$(PREFIX)/lib/sysusers.d/rum-agent.conf'

uninstall: stage-install ## take away what install put there, with the same PREFIX and DESTDIR
	case '$(DESTDIR)' in ''|/*) at='$(DESTDIR)' ;; *) at='$(CURDIR)/$(DESTDIR)' ;; esac && \
	cd build/install && find . ! -type d -exec rm -f "$$at/{}" \; && \
	find . -depth -type d -path '*/rum-*' | while read -r dir; do [ ! -d "$$at/$$dir" ] || rmdir --ignore-fail-on-non-empty "$$at/$$dir"; done

clean: ## remove what build made
	rm -rf bin build
