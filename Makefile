# The two commands are `make demo` and `make test`; both set up everything they need (see tools/setup).
SHELL := /bin/bash
PYTHON := .venv/bin/python

.PHONY: help setup setup-dev demo demo-arm64 test lint unit integration e2e bench proto monitoring reference images compose-credentials clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## install Debian packages and the virtual environment
	@tools/setup

setup-dev:
	@tools/setup --dev

demo: setup ## build, boot, sign and verify a real Linux kernel on an embedded farm
	@PATH="$(CURDIR)/.venv/bin:$$PATH" demo/run

demo-arm64: setup ## the same for arm64, cross-compiled
	@PATH="$(CURDIR)/.venv/bin:$$PATH" demo/run arm64

test: setup-dev ## the whole test suite, with the time of each stage
	@tools/stages lint unit integration e2e

lint: setup-dev ## ruff, mypy --strict, import-linter, buf lint, generated code up to date
	@tools/stages lint

unit: setup-dev ## fast tests: pure parts and single edges
	@tools/stages unit

integration: setup-dev ## real Ray clusters and whole farms on a fake kernel
	@tools/stages integration

e2e: setup-dev ## real kernels: bit identity, boot, kill -9
	@tools/stages e2e

bench: setup ## plain make against the farm, side by side; CONFIGS=small for one configuration
	@$(PYTHON) bench/run.py $(CONFIGS)

proto: setup-dev ## generate the gRPC code from proto/ anew
	@$(PYTHON) tools/generate.py

monitoring: setup-dev ## generate the dashboard anew
	@$(PYTHON) tools/dashboard.py

reference: setup-dev ## generate the pages of docs/reference that come from the code anew
	@$(PYTHON) -m tools.reference

images: ## container images of coordinator and worker; ARGS="--build-arg BASE=..." for a site's own base
	@for target in coordinator worker; do docker build --file docker/Dockerfile --target $$target --tag kernfarm/$$target:0.1.0 $(ARGS) . || exit 1; done

compose-credentials: ## token, certificates and signing key for deploy/compose.yaml, once; NAMES="farm.example.org" for the certificate
	@deploy/credentials.sh deploy/credentials $(NAMES)

clean: ## remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
