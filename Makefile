# Two commands matter: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo serve check test bench loadtest faults train lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(READY) ## Serve the demo model, remove two concepts live, write out/demo/
	$(BIN)/quickfix demo

serve: $(READY) ## Serve the demo model on port 3000 until interrupted
	$(BIN)/quickfix serve

check: $(READY) ## Format, lint, types, import contracts, Kubernetes overlays
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.k8s

test: $(READY) ## All tests
	$(BIN)/pytest

loadtest: $(READY) ## Load the demo model for 3 minutes, print one table, write out/loadtest/
	$(BIN)/python -m loadtests

bench: $(READY) ## Measure the service beside its peers (docs/benchmarks.md)
	$(BIN)/python -m benchmarks.serving

faults: $(READY) ## Real faults on a real fleet under load; the table of docs/operations/faults.md
	$(BIN)/python -m benchmarks.faults

train: $(READY) ## Make the demo model from nothing (training/README.md says how long)
	$(BIN)/python -m training

lock: $(READY) ## Write the lock files from the environment as it is
	$(BIN)/python tools/lock.py

clean: ## Remove the environment and all output
	rm -rf .venv out build *.egg-info
