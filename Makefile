# Everything a fresh clone needs is Python >= 3.11 and make; the first call builds .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# make bench-cifar ARGS="--rate 0.01" hands arguments on.
BENCHMARKS := train scan classes memory demo cifar published scanners peer references fusion screens screening guards harden selection repair-plan trusted text-screens language-models text-repairs text-classifiers minilm adapters language-cost signing manifest hostile federated flower-versions federated-cost

.PHONY: demo test lint format check coverage conformance clean bench-grid $(BENCHMARKS:%=bench-%)

demo: $(VENV)/.package
	$(BIN)/ostiary demo

# One thread a process: the tests are many small tensors, and results do not depend on the machine's cores. Files of
# tests share models that are trained once in a run; tests/conftest.py says which files go first.
WORKERS ?= 2
# One set of instructions on every machine: tests/conftest.py says why.
ALIKE := OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE OPENBLAS_CORETYPE=Haswell
test: $(VENV)/.dev
	$(ALIKE) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint test

coverage: $(VENV)/.dev
	$(ALIKE) $(BIN)/python -m pytest -q --cov --cov-report=term-missing:skip-covered

conformance: $(VENV)/.dev
	$(ALIKE) $(BIN)/python -m pytest tests/conformance

bench-train: script := train_speed
bench-scan: script := scan_speed
bench-signing: script := signing_speed
bench-manifest: script := manifest_speed
bench-federated: script := federated
bench-federated-cost: script := federated_cost
bench-flower-versions: script := flower_versions
bench-classes: script := scan_classes
bench-memory: script := memory
bench-demo: script := demo_seeds
bench-cifar: script := cifar_story
bench-cifar: ARGS ?= --work build/cifar-story
bench-published: script := published_models
# These three look at the models of a grid: make bench-grid GRID=scanners (or GRID=calibrate) first.
bench-scanners: script := scanners
bench-peer: script := peer_scan
bench-scanners bench-peer: ARGS ?= --store build/bench/scanners --reference $(wildcard src/ostiary/scan/references/*.json)
# Of the grids develop and develop-rare: the weights of the fusion. Of reference-models, scanners and imbalanced: what
# it finds.
bench-fusion: script := fusion
bench-screens: script := screens
bench-screening: script := screen_speed
bench-guards: script := guards
bench-guards: ARGS ?= --store build/bench/scanners
bench-harden: script := harden
bench-selection: script := selection
bench-repair-plan: script := repair_plan
bench-text-screens: script := text_screens
bench-language-models: script := language_models
bench-text-repairs: script := text_repairs
bench-adapters: script := adapters
bench-language-cost: script := language_cost
# A published encoder that is no part of the project: ARGS="--encoder DIR".
bench-text-classifiers: script := text_classifiers
bench-minilm: script := minilm
# Other scanners are named by hand: ARGS="--scanner picklescan=PROGRAM --speed".
bench-hostile: script := hostile
bench-trusted: script := trusted
bench-trusted: ARGS ?= --store build/bench/develop
bench-harden bench-selection bench-repair-plan: ARGS ?= --store build/bench/scanners
bench-screens: ARGS ?= --grid reference-models --store build/bench/reference-models
bench-references: script := references
bench-references: ARGS ?= --store build/bench/calibrate
$(BENCHMARKS:%=bench-%): $(VENV)/.package
	$(BIN)/python -m benchmarks.$(script) $(ARGS)

# make bench-grid GRID=develop; goes on where an earlier call was stopped. Models come from the bank where there is one.
bench-grid: GRID ?= reference
bench-grid: BANK = $(wildcard benchmarks/bank/$(GRID:-models=))
bench-grid: $(VENV)/.package
	$(BIN)/ostiary bench run benchmarks/grids/$(GRID).toml --store build/bench/$(GRID) $(if $(BANK),--bank $(BANK)) $(ARGS)
	$(BIN)/python -m benchmarks.grid_record $(GRID) --store build/bench/$(GRID)
	$(BIN)/ostiary bench table --store build/bench/$(GRID)

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: ostiary needs Python 3.11 or newer; '$(PYTHON)' is" "$$($(PYTHON) --version 2>&1)"; \
		echo "hint: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; } >&2
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# torch goes first and alone, so that the build that is found for this machine satisfies all others.
$(VENV)/.package: $(VENV)/.made pyproject.toml constraints.txt
	@echo "installing ostiary and what it needs into $(VENV); this takes a minute or two"
	$(INSTALL) torch
	$(INSTALL) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.package
	$(INSTALL) -e '.[dev,text,onnx,labels,cluster,slurm,serve,blake3,sigstore,federated]'
	@touch $@
