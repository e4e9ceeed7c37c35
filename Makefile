.DEFAULT_GOAL := help
.PHONY: help serve test check lint lint-types lint-style lint-openapi test-unit test-integration test-chaos test-lab test-fuzz coverage format docs load bench bench-quick lock audit licences wheelhouse image-base image clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
# Installs exactly the versions in a lock file, and only files with a listed hash.
PIP_LOCKED := $(PIP) install --progress-bar on --require-hashes --no-deps -r

# The version of torch, and the index URL of another build (CPU only, or CUDA for your GPU).
TORCH ?= torch==2.13.0
TORCH_INDEX ?=

help:    ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/  /'

serve: $(VENV)/.serve  ## Run the whole service on this machine; set RERANK_PORT and RERANK_MODEL
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/rerank-serve up

test: check test-integration  ## Run all tests but those of test-lab and test-fuzz

check: lint test-unit  ## Check format, lint, security, types, layers and docs, and run test-unit (minutes)

lint: $(VENV)/.dev
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint-types lint-style

lint-types: $(VENV)/.dev
	$(BIN)/mypy serve_app conformance cluster testkit tests benchmarks loadtests training docs examples

lint-style: $(VENV)/.dev
	$(PIP) check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive serve_app conformance cluster testkit benchmarks loadtests
	$(BIN)/lint-imports
	$(MKDOCS) --quiet

# With more threads, the models of tests that run at the same time would wait for each other.
ONE_THREAD := OMP_NUM_THREADS=1
PARALLEL := --numprocesses logical --maxprocesses 4
# The order is kept, because the groups with the fewest tests take longest.
BY_GROUP := --dist loadgroup --no-loadscope-reorder
# Tests that share a model run in one worker; see tests/conftest.py. Some tests mostly wait, so there
# are more workers than the 2 cores of a small machine.
GROUPS := --numprocesses 4 $(BY_GROUP)
# Two groups at a time, because tests of a running service leave a core idle half of the time.
SERVICES := --numprocesses 2 $(BY_GROUP)
# A worker that has run out of tests takes some of another one.
UNIT := tests benchmarks -m "not slow and not ray" $(PARALLEL) --dist worksteal
test-unit: $(VENV)/.dev  ## Run the tests without the markers slow and ray
	$(ONE_THREAD) $(BIN)/pytest $(UNIT)

# The linter is a program for Node.js, which the dev requirements contain.
lint-openapi: $(VENV)/.dev  ## Lint the OpenAPI document
	PATH="$(abspath $(BIN)):$$PATH" npx --yes @redocly/cli@2.77.0 lint docs/reference/openapi.json

test-integration: lint-openapi  ## Run the tests with models of real size, Chromium, Ray, and test-chaos
	$(ONE_THREAD) $(BIN)/pytest tests benchmarks -m "slow and not ray" $(GROUPS)
	$(BIN)/pytest tests benchmarks -m ray $(NO_LAB) $(SERVICES)

FUZZ_S ?= 600
SEED ?= 1
test-fuzz: $(VENV)/.dev  ## Check the answers to generated requests; set FUZZ_S and SEED
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_S) --seed $(SEED)

test-chaos: $(VENV)/.dev  ## Run the tests that attack the service or kill its processes
	$(BIN)/pytest tests/chaos tests/attacks -m ray $(NO_LAB) $(SERVICES)

LAB := tests/integration/test_lab.py tests/chaos/test_lab.py
NO_LAB := $(LAB:%=--ignore %)
test-lab: $(VENV)/.dev  ## Run the tests of a cluster of several hosts on this machine
	$(BIN)/pytest $(LAB) -m ray

coverage: $(VENV)/.dev  ## Print the branch coverage of serve_app by test-unit
	$(BIN)/pytest $(UNIT) --cov serve_app --cov-branch --cov-report term:skip-covered

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
docs: $(VENV)/.dev  ## Write the generated pages of docs/ and the dashboards, and build the site into var/site
	$(BIN)/python -m docs.generate
	$(BIN)/python -m cluster.grafana
	$(MKDOCS)

format: $(VENV)/.dev  ## Format the code and apply the linter's fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

HOST ?= http://127.0.0.1:8000
RATE ?= 10
DURATION ?= 60s
load: $(VENV)/.dev  ## Run a load test; set HOST, RATE in requests/s and DURATION
	$(BIN)/rerank-serve loadtest run -H $(HOST) --rate $(RATE) -t $(DURATION)

bench: $(VENV)/.dev  ## Measure the quality of the embedded model on the judged collection DATA
	$(BIN)/python -m benchmarks.quality.ranking --model embedded --data $(DATA)

bench-quick: $(VENV)/.dev  ## Measure the engine against its peers, and the service, in 5 minutes
	$(BIN)/python -m benchmarks.engine.throughput --quick --turns 3 --requests 1
	$(BIN)/python -m benchmarks.service.gpu_overhead --gpus 10000 --seconds 6

# The resolved versions are the same on x86_64 and aarch64; the hashes cover all platforms.
UPGRADE ?=
UV_LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --generate-hashes \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	--group build --group torch --custom-compile-command 'make lock' $(UPGRADE)
# docs/operate/gpus.md has the reasons for the versions of torch in the images.
UV_LOCK_IMAGE := $(BIN)/uv pip compile --quiet --generate-hashes --only-binary :all: \
	--python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	-c requirements.txt --custom-compile-command 'make lock'
lock: $(VENV)/.dev  ## Update the lock files; UPGRADE=--upgrade takes the newest allowed releases
	$(UV_LOCK) --extra dev -o requirements-dev.txt
	$(UV_LOCK) --extra engine --extra openvino --extra postgres --extra traces --only-binary :all: -c requirements-dev.txt -o requirements.txt
	$(UV_LOCK_IMAGE) --extra postgres --extra traces --override cluster/images/gateway-overrides.txt pyproject.toml -o cluster/images/gateway.txt
	echo torch==2.10.0 | $(UV_LOCK_IMAGE) --no-config - -o cluster/images/torch-v100.txt
	echo torch==2.13.0 | $(UV_LOCK_IMAGE) --no-config - -o cluster/images/torch-new.txt

UVX := $(BIN)/uv tool run
audit: $(VENV)/.dev  ## Look for known vulnerabilities of the locked packages; needs pypi.org
	$(UVX) pip-audit@2.10.1 --requirement requirements.txt --require-hashes --disable-pip --strict

licences: $(VENV)/.dev  ## List the licences of the locked packages
	@$(UVX) pip-licenses@5.5.5 --python $(BIN)/python --from mixed --order license \
		--packages $(shell sed -nE "s/^([A-Za-z0-9._-]+)==.*/\1/p" requirements.txt)

# It is also the build context of the images, whose Python is 3.11, so that PYTHON must be, too.
WHEELHOUSE ?= var/wheelhouse
GPU ?=
DOWNLOAD := $(PIP) download --require-hashes --no-deps --only-binary :all: --dest $(WHEELHOUSE)
wheelhouse: $(VENV)/.locked  ## Download all packages for machines without a network; set GPU=v100 or new
	$(DOWNLOAD) -r requirements.txt
	$(if $(GPU),$(DOWNLOAD) -r cluster/images/torch-$(GPU).txt)
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(WHEELHOUSE) .
	cp requirements.txt $(addprefix cluster/,*.yaml ray.env images/*.txt images/Containerfile images/sbom.py) $(WHEELHOUSE)

# For a place without a registry. Like debian:12-slim, it has no manuals and of perl only perl-base.
BUILDER ?= podman
SLIM := --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--include=usr-is-merged --customize-hook='chroot "$$1" apt-get purge --yes perl-modules-5.36'
image-base:  ## Build the image localhost/debian:12-slim with mmdebstrap, without a registry
	mkdir -p var/image-base
	mmdebstrap --variant=minbase $(SLIM) bookworm var/image-base/debian.tar
	printf 'FROM scratch\nADD debian.tar /\n' | $(BUILDER) build -f - -t localhost/debian:12-slim var/image-base

BASE ?= docker.io/library/debian:12-slim
IMAGE := $(if $(GPU),scorer-$(GPU),gateway)
image: wheelhouse  ## Build the gateway's image, or with GPU=v100 or new a scorer's; set BASE and BUILDER
	$(BUILDER) build -f $(WHEELHOUSE)/Containerfile -t rerank-serve/$(IMAGE) --build-arg BASE=$(BASE) \
		--build-arg REQUIREMENTS="$(if $(GPU),requirements.txt torch-$(GPU).txt,gateway.txt)" $(WHEELHOUSE)

clean:   ## Remove the output of the other targets, but never var/, which holds the ledger
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: set PYTHON=python3.11")'
	@echo "Creating $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

# --only-binary: building a source distribution would download build requirements without hashes.
$(VENV)/.locked: $(VENV)/bin/python requirements.txt
	$(PIP_LOCKED) requirements.txt --only-binary :all:
	@touch $@

# Torch is not locked. The stamp's name depends on the requested build, so that another request
# reinstalls it. The lock already contains the requirements that all builds of torch share.
TORCH_STAMP := $(VENV)/.torch-$(shell echo '$(TORCH) $(TORCH_INDEX)' | cksum | cut -d' ' -f1)
$(TORCH_STAMP): $(VENV)/.locked
	$(PIP) install --progress-bar on $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	@rm -f $(VENV)/.torch-* && touch $@

$(VENV)/.serve: $(TORCH_STAMP) pyproject.toml
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements-dev.txt
	$(PIP_LOCKED) requirements-dev.txt
	@touch $@
