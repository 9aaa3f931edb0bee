# Everything runs in a virtual environment of its own; git, make and Python 3.11 or newer with pip and venv are enough.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ENGINE_ARGUMENTS ?=
LOADTEST_ARGUMENTS ?=
# Neighboring tests share servers, so each worker takes a run of them, and steals from the other at the end.
WORKERS ?= -n 3 --dist worksteal
# Tests without a server wait for nothing, so a third worker on two cores would only collect all tests once more.
FAST_WORKERS ?= -n 2 --dist worksteal
FUZZ_ARGUMENTS ?=
FUZZ_INPUT_ARGUMENTS ?=
CHAOS_ARGUMENTS ?=
MUTATE_ARGUMENTS ?=
MATRIX_ARGUMENTS ?=
TEST_ARGUMENTS ?=
# Without compiled files, each process of a test run would compile every module again.
unexport PYTHONDONTWRITEBYTECODE
ifdef TOKEN
export LOADTEST_TOKEN := $(TOKEN)
endif

.DEFAULT_GOAL := help
.PHONY: help simulate loadtest test test-fast test-thorough collect check coverage docs package package-matrix sbom advisories fuzz fuzz-inputs mutate bench bench-check generate format lock chaos soak clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Without --no-compile, pip would compile 9,000 files, of which tests and checks import a quarter.
$(READY): pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

simulate: $(READY) ## Simulate the opening of Surabaya's quota: tables here, report and picture in build/.
	@mkdir -p build
	@$(BIN)/quota-engine simulate --baseline --report build/opening.html --picture build/opening.svg $(ENGINE_ARGUMENTS)

loadtest: $(READY) ## Load-test a staging service started here, or HOST=... TOKEN=...; results in build/.
	@$(BIN)/quota-engine loadtest run $(if $(filter command,$(firstword $(origin HOST))),--host $(HOST) --remote) $(LOADTEST_ARGUMENTS)

test: $(READY) ## Run all tests, and list the skipped ones with their remedy.
	$(BIN)/python -m pytest $(WORKERS) -q $(TEST_ARGUMENTS)

test-fast: $(READY) ## Run the tests that need no server and no browser and are not slow, in about a minute.
	$(BIN)/python -m pytest $(FAST_WORKERS) -q -m "not store and not browser and not slow" $(TEST_ARGUMENTS)

test-thorough: export HYPOTHESIS_PROFILE = thorough
test-thorough: test ## Run all tests, with more random examples and seeds; see tests/README.md.

collect: $(READY) ## Import all tests, which also compiles them for the next run.
	@$(BIN)/python -m pytest --collect-only -q >/dev/null

# The synchronous form of the memory store calls the same rules as the asynchronous one, and a batch those of its commands.
coverage: $(READY) ## Run the deterministic tests of the rules; fail unless they take every branch of domain/.
	$(BIN)/coverage run -m pytest -q tests/domain tests/stores/test_memory.py -k "not async" --ignore tests/domain/test_state_machine_properties.py --ignore tests/domain/test_batches.py
	$(BIN)/coverage report --show-missing --skip-covered --fail-under 100

check: $(READY) ## Check format, lint, types, imports, names, prose, spelling and tracked files.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_names
	$(BIN)/python -m scripts.check_prose
	$(BIN)/python -m scripts.check_files
	git ls-files -z | xargs -0 $(BIN)/codespell

docs: $(READY) ## Build the documentation site in build/site/html; each warning is an error.
	$(BIN)/python -m scripts.site

package: $(READY) ## Build the sdist and the wheel in dist/, check them, and use the wheel in a clean environment.
	$(BIN)/python -m scripts.check_package

sbom: $(READY) ## Write build/sbom.json, the locked distributions with hashes and licenses; fail if one lacks them.
	$(BIN)/python -m scripts.sbom

advisories: $(READY) ## Compare the locked distributions with a copy of an OSV database: ADVISORIES=folder.
	@$(BIN)/python -m scripts.advisories $(ADVISORIES)

package-matrix: $(READY) ## Try each extra alone, with the oldest and the newest dependencies; takes minutes.
	@$(BIN)/python -m scripts.package_matrix $(MATRIX_ARGUMENTS)

fuzz: $(READY) ## Run seeds of the simulation: FUZZ_ARGUMENTS='--seeds 10000 --from 0', or '--seed 17' for one.
	@$(BIN)/quota-engine fuzz $(FUZZ_ARGUMENTS)

fuzz-inputs: $(READY) ## Fuzz the readers of untrusted bytes; FUZZ_INPUT_ARGUMENTS='--seconds 600 --keep'.
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	@$(BIN)/python -m tests.input_fuzzing $(FUZZ_INPUT_ARGUMENTS)

# cosmic-ray is installed beside the environment, because nothing else needs it.
mutate: $(READY) ## Change the rules at random places, and run their tests; MUTATE_ARGUMENTS='--mutants 150 --seed 1'.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target build/mutate 'cosmic-ray>=8.7,<9'
	@PYTHONPATH=build/mutate $(BIN)/python -m scripts.mutate $(MUTATE_ARGUMENTS)

chaos: $(READY) ## Strike with faults on real servers under load; CHAOS_ARGUMENTS='--strikes 5 --write'.
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGUMENTS)

soak: $(READY) ## Load a server with random faults for an hour; SOAK_ARGUMENTS='--minutes 5 --backend postgresql'.
	@$(BIN)/python -m tests.chaos soak $(SOAK_ARGUMENTS)

bench: $(READY) ## Measure the engine in memory, on one core.
	$(BIN)/python -m benchmarks.memory

bench-check: $(READY) ## Compare a short run with the ratios in benchmarks/kept_ratios.json; fail if one is far worse.
	@$(BIN)/python -m benchmarks.check

generate: $(READY) ## Update the parts of the documents that are generated from the code.
	$(BIN)/python docs/generate.py

format: $(READY) ## Format the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Update requirements-dev.txt, with hashes (needs uv).
	uv pip compile --quiet --universal --no-strip-extras --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements-dev.txt

clean: ## Remove the files that the other targets made.
	rm -rf $(VENV) build dist .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
