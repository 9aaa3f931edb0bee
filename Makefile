# Everything runs in a virtual environment of its own; git, make and Python 3.11 or newer with pip and venv are enough.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENGINE_ARGUMENTS ?=
LOADTEST_ARGUMENTS ?=
ifdef TOKEN
export LOADTEST_TOKEN := $(TOKEN)
endif

.DEFAULT_GOAL := help
.PHONY: help simulate loadtest test check coverage bench docs format lock clean

help: ## Show what there is.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

simulate: $(READY) ## Replay the opening of Surabaya's quota: tables here, report and picture in build/.
	@mkdir -p build
	@$(BIN)/quota-engine simulate --baseline --report build/opening.html --picture build/opening.svg $(ENGINE_ARGUMENTS)

loadtest: $(READY) ## Replay openings against a staging started here, or HOST=... TOKEN=...; the verdict goes to build/.
	@$(BIN)/quota-engine loadtest run $(if $(filter command,$(firstword $(origin HOST))),--host $(HOST) --remote) $(LOADTEST_ARGUMENTS)

test: $(READY) ## Run all tests.
	$(BIN)/python -m pytest -n 2 -q

coverage: $(READY) ## Run the deterministic tests of the rules, and fail unless they take every branch of domain/.
	$(BIN)/coverage run -m pytest -q tests/domain tests/conformance --ignore tests/domain/test_state_machine_properties.py
	$(BIN)/coverage report --include '*/quota_engine/domain/*' --show-missing --skip-covered --fail-under 100

check: $(READY) ## Check format, lint, types and the direction of imports.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## Measure the engine in memory, on one core.
	$(BIN)/python -m benchmarks.memory

format: $(READY) ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Write requirements-dev.txt anew, with hashes (needs uv).
	uv pip compile --quiet --universal --no-strip-extras --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements-dev.txt

clean: ## Remove what the other targets made.
	rm -rf $(VENV) build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
