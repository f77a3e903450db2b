# Targets are for people and for CI alike: what CI runs is `make test`.
# Everything a target makes goes to bin/, which `make clean` removes.

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
REVISION := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
INFO    := github.com/prometheus/common/version
BRANCH  := $(shell git rev-parse --abbrev-ref HEAD 2>/dev/null || echo unknown)
# Of the commit, so that the same source is the same binary.
DATE    := $(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X $(INFO).Version=$(VERSION) -X $(INFO).Revision=$(REVISION) -X $(INFO).Branch=$(BRANCH) -X $(INFO).BuildDate=$(DATE)

# How long each fuzz target of `make fuzz` runs, and where `make run` listens.
FUZZTIME ?= 30s
ARGS     ?=

# Test modules of their own: what they need must stay out of the daemon.
MODULES := $(patsubst %/go.mod,%,$(shell find . -mindepth 2 -name go.mod -not -path './bin/*'))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/mcached and bin/mcbench, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

.PHONY: run
run: build ## build the daemon and run it with defaults (more flags: make run ARGS=--memory.size=1GiB)
	bin/mcached $(ARGS)

# How long the tests of a package may take: the last resort of all that wait,
# on however slow a machine, so it is long. They take two minutes at the most.
TIMEOUT ?= 20m

.PHONY: test
test: ## everything a change must pass: vet, unit, model and end-to-end tests, the race detector where it matters
	$(GO) test -vet=all -timeout $(TIMEOUT) ./...
	@set -e; for m in $(MODULES); do echo "cd $$m && go test ./..."; (cd $$m && $(GO) test -vet=all -timeout $(TIMEOUT) ./...); done
	$(MAKE) --no-print-directory race

# Tests that measure memory, live within a limit of it, or count allocations:
# the race detector has its own of both.
NOT_RACE := Resident|AllocateNothing|Allocs|E2EMemory|Squeeze
# Those in which nothing happens at the same time, and that are long: laws against
# simulated machines, parsers, formats, containers against maps. What does happen
# at the same time has tests of its own beside each, which the race detector sees.
NOT_RACE := $(NOT_RACE)|^TestSteps$$|^TestTraces$$|^TestHits$$|^TestPatternModel$$|^TestPatternBytes$$|^TestHardQueries$$|^TestSmallWorld$$|^TestFrameLengths$$|^TestSaveEveryCount$$
# Of mcache,
NOT_RACE := $(NOT_RACE)|^TestSeriesModel$$|^TestWriteBackModel$$|^TestRecordsModel$$|^TestSelectModel$$|^TestCoverageModel$$|^TestMetamorphic$$|^TestHonest$$|^TestChurn$$|^TestConservation$$|^TestChangedSinceModel$$
NOT_RACE := $(NOT_RACE)|^TestGenerationsOracle$$|^TestReclaimShares$$|^TestReclaimOrder$$|^TestOverflowKeepsAll$$|^TestOverflowCold$$|^TestBackfill$$|^TestSaveOrder$$|^TestReadSnapshotDamaged$$
# of kvcache and query,
NOT_RACE := $(NOT_RACE)|^TestShares$$|^TestLargeValuesAsMap$$|^TestManyModel$$|^TestDecimals$$|^TestRunsArePoints$$|^TestFormulasAreTheEngine$$|^TestAllPods$$|^TestCompleteFromOracle$$
NOT_RACE := $(NOT_RACE)|^TestTallyModel$$|^TestLookupModel$$|^TestIndexWithoutMemory$$|^TestFullOfHeads$$|^TestOpen$$|^TestScan$$|^TestGhosts$$|^TestDeadSpace$$|^TestKernelRefuses$$
# and of cluster and script.
NOT_RACE := $(NOT_RACE)|^TestScriptsAreRefused$$|^TestCollectionModel$$|^TestTableOrder$$|^TestTableOwnersWithout$$|^TestTableIsARendezvous$$|^TestTableBalance$$|^TestSeriesHashIsEven$$|^TestNoNeedlessMoves$$|^TestKeyGroups$$|^FuzzScripts$$
# Clusters that do what smaller ones of other end-to-end tests do, too, and programs
# that measure servers, a request at a time.
NOT_RACE := $(NOT_RACE)|^TestClusterOverloadedMember$$|^TestClusterRollingRestartOfOneCopy$$|^TestClusterTwoOfFive$$|^TestClusterRedisClients$$|^TestClusterWrites$$|^TestE2EClientGone$$
NOT_RACE := $(NOT_RACE)|^TestSideBySide$$|^TestWriteAndCheck$$|^TestForward$$|^TestReadthrough$$
# Those of the page in a browser, of the command line and of images: what they ask
# of the daemon other end-to-end tests ask it, too, from more sides at a time.
NOT_RACE := $(NOT_RACE)|E2EPage|E2EKeyboard|E2EMouse|E2ECompletion|E2EHelp|E2EVersion|E2EWelcome|E2ECommands|E2ERefusals|E2EAlertsFire|E2EDashboard|E2ESystemdUnits|E2EInstall|E2EImage

.PHONY: race
race: ## all packages, and the daemon end to end, under the race detector (needs a C compiler)
	@if command -v "$$($(GO) env CC)" >/dev/null; then \
		echo "go test -race -short ./..."; \
		CGO_ENABLED=1 GOFLAGS="-race $$($(GO) env GOFLAGS)" $(GO) test -vet=off -short -timeout $(TIMEOUT) -skip '$(NOT_RACE)' ./...; \
	elif [ "$$CI" = true ]; then echo "the race detector needs a C compiler: apt-get install gcc libc6-dev" >&2; exit 1; \
	else echo "race: skipped, it needs a C compiler (apt-get install gcc libc6-dev)"; fi

.PHONY: debug
debug: export GOFLAGS := -tags=kvdebug $(shell $(GO) env GOFLAGS)
debug: ## a build that overwrites freed memory and checks its invariants: all short tests, the daemon end to end, and in a storm
	$(GO) test -vet=all -short -timeout $(TIMEOUT) -skip '$(NOT_DEBUG)' ./...
	$(GO) test -vet=all -timeout $(TIMEOUT) -run 'E2EStorm' ./cmd/mcached/e2e

# Tests that count allocations: what is checked and overwritten costs some.
NOT_DEBUG := AllocateNothing|Allocs

.PHONY: e2e
e2e: ## only the end-to-end tests, with what they do
	$(GO) test -count=1 -v ./cmd/mcached/e2e

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each (30s)
	@set -e; for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
			echo "$$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -parallel 1 $$p; \
		done; \
	done

.PHONY: bench
bench: ## all benchmarks, with allocations
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: compare
compare: build ## the same load against mcached and the peers that are installed, in one table
	bin/mcbench compare

.PHONY: readthrough
readthrough: build bin/prometheus ## what reading through to a Prometheus 3 saves and costs, side by side, in one table (some minutes)
	PROMETHEUS=bin/prometheus bin/mcbench readthrough

# Prometheus 3, which distributions have not: built from the module that a test
# module requires anyway. Its version is that of the module, v0.315.0 is 3.15.0.
PROMETHEUS3 := mcache/query/promqltest
bin/prometheus: $(PROMETHEUS3)/go.mod
	@mkdir -p bin && cp $(PROMETHEUS3)/go.mod bin/prometheus.mod && cp $(PROMETHEUS3)/go.sum bin/prometheus.sum
	cd $(PROMETHEUS3) && module=github.com/prometheus/prometheus && version=$$($(GO) list -m -f '{{.Version}}' $$module | sed -E 's/^v0\.3(0?)([0-9]+)\./3.\2./') && \
		CGO_ENABLED=0 $(GO) build -mod=mod -modfile='$(CURDIR)/bin/prometheus.mod' -tags remove_all_sd \
		-ldflags "-s -w -X $(INFO).Version=$$version" -o '$(CURDIR)/bin/prometheus' $$module/cmd/prometheus

.PHONY: compliance
compliance: ## Prometheus' own tests of remote-write receivers, against the daemon that runs at URL
	@test -d $(COMPLIANCE) || git clone --depth 1 https://github.com/prometheus/compliance $(COMPLIANCE)
	@mkdir -p bin && printf 'remote_write: [{name: mcached, url: "%s"}]\n' '$(URL)' > bin/compliance.yml
	cd $(COMPLIANCE)/remotewrite/receiver && PROMETHEUS_RW2_COMPLIANCE_CONFIG_FILE='$(CURDIR)/bin/compliance.yml' $(GO) test -count=1 .

# The suite is no module that the Go proxy serves, so it is cloned; the
# underscore keeps its packages out of ours.
COMPLIANCE ?= bin/_compliance
URL        ?= http://127.0.0.1:9201/api/v1/write

# Settings that the daemon does not have are about encodings and what is not
# kept here: who sets them is told OK. Of scripts and functions, scripts.
.PHONY: redis-tests
redis-tests: ## Redis' own tests, as far as the types go, against the daemon that listens at REDIS_PORT
	@test -d $(REDIS_TESTS) || { git clone --depth 1 --branch 7.0.15 https://github.com/redis/redis $(REDIS_TESTS) && cd $(REDIS_TESTS) && \
		sed -i '/^proc r {args} {/,/^}/s/^    \[srv \$$level "client"\]/    if {[string match "config set *" $$args]} { return [expr {[catch {[srv $$level "client"] {*}$$args} e] ? "OK" : $$e}] }\n&/' tests/test_helper.tcl && \
		sed -i 's/^foreach is_eval {0 1}/foreach is_eval {1}/' tests/unit/scripting.tcl; }
	cd $(REDIS_TESTS) && for unit in type/string type/incr type/hash type/set expire keyspace scan protocol multi scripting tracking pubsub other slowlog quit auth; do \
		tclsh tests/test_helper.tcl --host 127.0.0.1 --port $(REDIS_PORT) --singledb --durable --ignore-encoding --ignore-digest \
			--single unit/$$unit --tags '-needs:debug -needs:repl -needs:config-maxmemory -external:skip -large-memory' \
			--skiptest '/Very big payload.*' --skiptest 'Tracking gets notification of expired keys'; done

.PHONY: go-redis-specs
go-redis-specs: ## go-redis' own specs of strings, keys, scanning, hashes, sets, scripts and time series, against the daemon that listens at REDIS_PORT
	@test -d $(GO_REDIS) || git clone --depth 1 --branch v9.22.0 https://github.com/redis/go-redis $(GO_REDIS)
	sed -i 's/redisStackPort = "[0-9]*"/redisStackPort = "$(REDIS_PORT)"/' $(GO_REDIS)/main_test.go
	sed -i 's/localhost:[0-9]*/localhost:$(REDIS_PORT)/' $(GO_REDIS)/timeseries_commands_test.go
	cd $(GO_REDIS) && RE_CLUSTER=true REDIS_VERSION=7.0 $(GO) test -count=1 -run TestGinkgoSuite . \
		-ginkgo.focus 'Commands (strings|keys|scanning|hashes|sets|Eval|EvalRO)|RedisTimeseries' -ginkgo.skip FlushDBAsync

# What they may not pass, and why, is in the comment of package ingest. Both
# empty the daemon. They fail by design where commands are unknown.
REDIS_TESTS ?= bin/_redis
GO_REDIS    ?= bin/_go-redis
REDIS_PORT  ?= 6379

.PHONY: lint
lint: ## gofmt, vet and staticcheck
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK) -checks inherit,-ST1013,-SA4016 ./...

STATICCHECK := v0.8.2

.PHONY: page
page: ## bundle the page's sources into the script and the style that the daemon serves (needs npm)
	cd cmd/mcached/page && npm ci --silent --no-fund --no-audit && npm run -s bundle

.PHONY: page-check
page-check: page ## that the bundle in the tree is what its sources give
	@git diff --exit-code --stat -- cmd/mcached/page || { echo "the page's bundle is not that of its sources: make page, and commit what it writes" >&2; exit 1; }

PREFIX ?= /usr/local

.PHONY: install
install: build ## install the daemon, its manual page, completion and systemd units below PREFIX (/usr/local), within DESTDIR
	install -D -m 755 bin/mcached '$(DESTDIR)$(PREFIX)/bin/mcached'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1' '$(DESTDIR)$(PREFIX)/share/bash-completion/completions' '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d' '$(DESTDIR)$(PREFIX)/lib/systemd/system'
	set -e; for unit in mcached.service mcached-snapshot.service mcached-snapshot.timer; do \
		sed 's|/usr/bin/mcached|$(PREFIX)/bin/mcached|' cmd/mcached/deploy/$$unit > '$(DESTDIR)$(PREFIX)/lib/systemd/system/'$$unit; done
	bin/mcached --help-man > '$(DESTDIR)$(PREFIX)/share/man/man1/mcached.1'
	bin/mcached --completion-script-bash > '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/mcached'
	bin/mcached --completion-script-fish > '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/mcached.fish'

.PHONY: cross
cross: ## build and vet for the other processor that releases are for
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...

# Packages carry a version without the tag's v; between tags, one that sorts before the first.
PACKAGE_VERSION := $(if $(filter v%,$(VERSION)),$(patsubst v%,%,$(VERSION)),0.0.0~$(VERSION))
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.48.0

.PHONY: release
release: build ## static binaries for amd64 and arm64, deb, rpm and checksums in bin/release; nothing is published
	rm -rf bin/release && mkdir -p bin/release
	@set -e; for arch in amd64 arm64; do \
		name=mcached-$(PACKAGE_VERSION)-linux-$$arch; dir=bin/release/$$name; echo "$$name"; mkdir -p $$dir; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $$dir/ ./cmd/...; \
		cp LICENSE README.md cmd/mcached/CHANGELOG.md $$dir/; \
		bin/mcached --help-man > $$dir/mcached.1; bin/mcached --completion-script-bash > $$dir/completion.bash; \
		tar -C bin/release --sort=name --owner=0 --group=0 --numeric-owner --mtime='$(DATE)' -czf $$dir.tar.gz $$name; \
		rm -rf bin/package; mv $$dir bin/package; \
		for packager in deb rpm; do \
			ARCH=$$arch VERSION='$(PACKAGE_VERSION)' $(GO) run $(NFPM) package -f cmd/mcached/deploy/nfpm.yaml -p $$packager -t bin/release/; \
		done; \
	done
	rm -r bin/package
	cd bin/release && sha256sum * > SHA256SUMS

# What builds images: docker, podman or buildah.
CONTAINER ?= $(shell command -v docker || command -v podman || command -v buildah)
IMAGE     ?= mcached:$(VERSION)

.PHONY: image
image: ## a container image, by docker, podman or buildah
	@test -n "$(CONTAINER)" || { echo "no docker, podman or buildah: CONTAINER=… names one" >&2; exit 1; }
	$(CONTAINER) build -f cmd/mcached/deploy/Dockerfile -t '$(IMAGE)' .

.PHONY: clean
clean: ## remove what the other targets made
	rm -rf bin
