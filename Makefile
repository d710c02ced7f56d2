# Banyan. `make help` lists what there is.

SHELL := /bin/bash
SWIFT ?= swift

# What users run, without a Swift runtime beside it. The compiler proves most accesses to be exclusive; the checks of the
# rest, at run time, cost puts a tenth and gets a sixth of their rate, and stay in what the tests run.
RELEASE := -c release --static-swift-stdlib -Xswiftc -enforce-exclusivity=unchecked

.PHONY: help run build test bench growth instructions chaos attacks disks failover powercut intruders lint format clean packages python

help: ## Show this list.
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

run: build ## Build, then run a local cluster of three members in the foreground.
	@"$$($(SWIFT) build $(RELEASE) --show-bin-path)/banyan" local

build: packages ## Build the programs for release.
	$(SWIFT) build $(RELEASE)
	@echo "built: $$($(SWIFT) build $(RELEASE) --show-bin-path)/{banyand,banyan,banyan-load,banyan-sim}"

# Tests run what users run: optimized programs. A folder of their own keeps the flag from rebuilding `make build`'s.
TESTING := -c release -Xswiftc -enable-testing --scratch-path .build-test

test: packages python ## Build everything optimized and run all tests.
	$(SWIFT) build $(TESTING) --build-tests
	$(SWIFT) test $(TESTING) --skip-build

CHAOS_SECONDS ?= 300

chaos: packages ## Do the worst to five real members, beside a hostile crowd, for CHAOS_SECONDS, and check what their clients saw.
	$(SWIFT) build $(TESTING) --build-tests
	BANYAN_CHAOS_SECONDS=$(CHAOS_SECONDS) $(SWIFT) test $(TESTING) --skip-build --filter ChaosTests/chaos

attacks: packages ## Attack real members at their ports, in all ways and rounds that the tests know, and print how they bear it.
	$(SWIFT) build $(TESTING) --build-tests
	BANYAN_ATTACKS=1 $(SWIFT) test $(TESTING) --skip-build --filter 'Forged|HostileClientTests|UnreadLogTests'

DISK_SECONDS ?= 300

disks: packages ## Run members on disks that are slow for DISK_SECONDS, stand still, and fill up.
	$(SWIFT) build $(TESTING) --build-tests
	BANYAN_DISK_SECONDS=$(DISK_SECONDS) $(SWIFT) test $(TESTING) --skip-build --filter 'DiskTests'

failover: packages ## Kill the leader 50 times, and print how long it takes until a write is acknowledged again.
	$(SWIFT) build $(TESTING) --build-tests
	BANYAN_FAILOVER_KILLS=50 $(SWIFT) test $(TESTING) --skip-build --filter ChaosTests/failover

PEERS ?=

bench: packages ## Measure the parts alone, then the standard table of loads; PEERS=DIR: beside other systems.
	BANYAN_BENCHMARKS=1 $(SWIFT) build $(RELEASE)
	@bench="$$($(SWIFT) build $(RELEASE) --show-bin-path)/banyan-bench"; \
	  taskset -c 0 $$bench micro && $$bench log && taskset -c 0 $$bench apply && taskset -c 0 $$bench apply --files 1000000 \
	  && $$bench storage && $$bench compare $(if $(PEERS),--peers $(PEERS))

growth: packages ## Measure how the rates change with clients, members, files, sizes and directories.
	BANYAN_BENCHMARKS=1 $(SWIFT) build $(RELEASE)
	"$$($(SWIFT) build $(RELEASE) --show-bin-path)/banyan-bench" growth

# Swift's hash tables have a seed of each process's own, which counts differ by, unless it is told.
instructions: export SWIFT_DETERMINISTIC_HASHING = 1
instructions: packages ## Count the instructions of the inner loops, which repeat exactly (needs valgrind).
	BANYAN_BENCHMARKS=1 $(SWIFT) build $(RELEASE) --product banyan-bench
	@bench="$$(mktemp)"; trap 'rm -f "$$bench"' EXIT; \
	  strip -o "$$bench" "$$($(SWIFT) build $(RELEASE) --show-bin-path)/banyan-bench"; chmod +x "$$bench"; \
	  count() { valgrind --tool=callgrind --callgrind-out-file=/dev/null $$bench micro --only $$1 --count $$2 2>&1 \
	    | awk '/Collected/ {print $$4}'; }; \
	  for name in $$($$bench micro --list); do \
	    printf '%-16s %12d instructions\n' $$name $$(( ($$(count $$name 60) - $$(count $$name 10)) / 50 )); done

RECOVERIES ?= 1000

powercut: packages ## Cut the power of a member's storage RECOVERIES times, and recover from what a disk would have kept.
	$(SWIFT) build $(RELEASE) --product banyan-powercut
	"$$($(SWIFT) build $(RELEASE) --show-bin-path)/banyan-powercut" --recoveries $(RECOVERIES)

SEEDS ?= 1..10000

intruders: packages ## Let somebody speak in the members' names, in SEEDS simulated runs of each kind.
	$(SWIFT) build $(RELEASE) --product banyan-sim
	@sim="$$($(SWIFT) build $(RELEASE) --show-bin-path)/banyan-sim"; \
	  $$sim --seeds $(SEEDS) --intruder insane && $$sim --seeds $(SEEDS) --nodes 5 --intruder mutating

lint: python ## Check the form of all Swift sources, that the driver alone steps the core, imports, and pages.
	$(SWIFT) format lint --strict --recursive --parallel Package.swift Sources Tests
	@! grep -rnE '\.takeOutput\(\)|[cC]ore\??\.step\(' Sources --include='*.swift' | grep -vE '^Sources/(Raft|Driver|Benchmarks)/'
	python3 .ci/lint.py

format: ## Bring all Swift sources into form.
	$(SWIFT) format --in-place --recursive --parallel Package.swift Sources Tests

clean: ## Remove what was built, and the data of `make run`.
	rm -rf .build .build-test .banyan-local

# The C libraries underneath, from Debian's or Ubuntu's packages.
LIBRARIES := liblmdb-dev zlib1g-dev libdeflate-dev libxxhash-dev pkg-config

packages:
	@if ! pkg-config --exists lmdb zlib libdeflate libxxhash 2>/dev/null; then \
	  echo "installing $(LIBRARIES)"; \
	  if [ "$$(id -u)" = 0 ]; then as=; \
	  elif command -v sudo >/dev/null; then as=sudo; \
	  else echo "some of these are missing; install them as root: apt-get install $(LIBRARIES)" >&2; exit 1; fi; \
	  $$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends $(LIBRARIES); \
	fi

# A test runs a client in another language.
python:
	@command -v python3 >/dev/null || { \
	  echo "installing python3"; \
	  if [ "$$(id -u)" = 0 ]; then as=; elif command -v sudo >/dev/null; then as=sudo; \
	  else echo "python3 is missing; install it as root, e.g. apt-get install python3" >&2; exit 1; fi; \
	  $$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq --no-install-recommends python3; \
	}
