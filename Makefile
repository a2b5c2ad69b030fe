# make demo       train a small T5, fuse it with itself, train on, and compare with a big one from scratch
# make paper      the paper's pretraining experiments at tiny size: an hour and a half on two cores
# make paper-fast the same in minutes, with runs too short to show anything: does it all work?
# make gains      ways to fuse and to grow at equal compute, then the best with more: many hours
# make table5     models pretrained, fused or not, fine-tuned on GLUE: Tables 5, 6, 7; an hour
# make test       the fast tests: all with TensorFlow, then the library's and the mesh's with JAX
# make test-all   the slow ones as well
# make test-torch the library's fast tests with torch, in .venv-interop (9 GB)
# make test-interop the same, and the tests with KerasHub and transformers
# make faults     kill programs at 200 points, fill their disks and damage their files, and compare
#                 what they end with; then feed every reader of files with damaged ones: an hour
# make lint       style, formatting, and the arrows between the packages
# make docs       the site of the documentation, in site/
# make wheel      the sdist and the wheel of the library, in dist/
# make check-docs the same, and every page is opened in a headless browser
# make figures    draws the pictures of the README and of docs/
# make bench      every benchmark with its defaults
# Each sets up .venv by itself, once, from pyproject.toml and constraints.txt; test-torch and
# test-interop set up .venv-interop, with constraints-interop.txt as well.

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# torch's wheel brings 5 GB of CUDA libraries: its tests have an environment of their own.
INTEROP := .venv-interop
INTEROP_INSTALLED := $(INTEROP)/.installed
# Of the environment whose .installed is made.
PIP_INSTALL = $(@D)/bin/python -m pip install --disable-pip-version-check --no-input -c constraints.txt

# Another interpreter: make test PYTHON=/usr/local/bin/python3.12
PYTHON ?=
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.11 python3 python3.12 python3.13)
# Run, not looked up: a version manager's shim may exist for a Python that is not there.
PYTHON_IS_GOOD := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# Three quarters of the smallest budget of docs/gains.md, with the rates that its sweeps chose. Both
# arms are evaluated at equal steps: with a finer grid one would reach the goal earlier.
TUNED := --tuning="the scales by sweeps over each arm, on the first seed (docs/gains.md)"
DEMO_ARGS ?= --plan=baseline,self_fusion --size=tiny --corpus=docs --workdir=demo \
  --steps=S:1023,M:300,baseline:600 --decay_steps=M:120 --eval_every=M:50 \
  --learning_rate_scale=self_fusion:0.5 $(TUNED)
# Three seeds of Table 1 first; then one seed of everything else, in the same folder. After an
# interruption it resumes. Without baseline_longer, which would continue a model after its decay.
PAPER_DIR ?= paper
PAPER_SIZE ?= --size=tiny --corpus=docs --decay_steps=M:160,L:40 --eval_every=L:20 \
  --learning_rate_scale=M:0.5,L:0.5,baseline:1 --checkpoint_every=M:100 $(TUNED)
PAPER_REPEATS ?= 3
# All budgets are that of the baseline. The largest baseline takes its steps from the middle one
# otherwise; with 640 it has as much compute as the ways to size L by two baselines.
PAPER_LISTS ?= --steps=L:200,figure2_1:640 --decay_steps=M:160,L:40,figure2_1:128 \
  --sigmas=0.02,0.1,0.5 --budgets=9.43e12 --fuse_at=500,1000,1364 --theory_every=100 \
  --keep_every=100
PAPER_FAST = PAPER_DIR=paper_fast PAPER_REPEATS=2 \
  PAPER_SIZE="--size=tiny --corpus=docs --steps=20 --eval_every=10 --checkpoint_every=10 \
    --eval_batches=2" \
  PAPER_LISTS="--sigmas=0.5 --offsets=-5,5 --fuse_at=10 --theory_every=10 --keep_every=10"
PAPER_TABLE1 := baseline,self_fusion,fusion_property,fusion_rule
PAPER_PLANS := $(PAPER_TABLE1),offsets,zero_blocks,when_to_fuse,figure2,four_at_once,pair_then_self
GAINS_DIR ?= gains
# The task without a plateau of docs/gains.md; a budget is 800 steps of the baseline.
GAINS_ARGS ?= --size=tiny --corpus=docs
# Without files of the benchmark (GLUE_DIR=FOLDER, with CoLA/train.tsv and so on) the tasks are
# those of TensorFlow Datasets.
TABLE5_DIR ?= table5
GLUE_DIR ?= $(wildcard ../shared/data/glue)
TABLE5_PRETRAIN ?= --size=tiny --corpus=docs --objective=span_corruption --input_length=128 \
  --steps=S:2500,M:2000,baseline:3000 --warmup_steps=S:600,M:2500,baseline:1000 --eval_every=1250
TABLE5_FINETUNE ?= --tasks=cola,mrpc,rte --repeats=3 --packed --steps=150 --checkpoint_every=50 \
  --eval_batches=1 --nosubmission
PYTEST_ARGS ?= -m "not slow"
OTHER_PYTEST_ARGS ?= -m "not slow and not one_backend"
# One process per core, each with one thread for TensorFlow's operations (tests/conftest.py); tests
# stay in order, so that most modules make their fixtures once. Each process needs about 3 GB.
PYTEST_OPTIONS := -n logical --maxprocesses=8 --dist=worksteal
PYTEST = $(BIN)/python -m pytest $(PYTEST_OPTIONS)
# What is worth testing on the second backend as well: the library, and what runs there alone.
ON_JAX := tests/keras_fusion $(addprefix tests/trainers/engines/,devices_test.py jax_test.py \
  jax_numbers_test.py jax_shardings_test.py losses_test.py mesh_test.py mesh_fusion_test.py)
ON_TORCH := tests/keras_fusion
TORCH_PYTEST = KERAS_BACKEND=torch $(INTEROP)/bin/python -m pytest $(PYTEST_OPTIONS) $(OTHER_PYTEST_ARGS)
FAULTS_ARGS ?= --points=200 --minutes=60 --seed=0
FUZZ_ARGS ?= --minutes=10 --seed=0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install demo paper paper-fast gains table5 test test-all test-torch test-interop faults \
  lint format docs check-docs figures wheel bench clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(BIN)/python $(INTEROP)/bin/python:
	@for python in $(PYTHONS); do \
	  if $$python -c '$(PYTHON_IS_GOOD)' >/dev/null 2>&1; then \
	    echo "Creating $(@:/bin/python=) with $$python."; exec $$python -m venv $(@:/bin/python=); \
	  fi; \
	done; \
	echo "Expected Python 3.11, 3.12 or 3.13 with its venv module. Received: none among $(PYTHONS)." \
	  "Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1

# setuptools comes first, so that the project itself is also built with pinned tools.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the pinned dependencies into $(VENV): one to three minutes."
	$(PIP_INSTALL) --quiet setuptools wheel
	$(PIP_INSTALL) --quiet --no-build-isolation --editable '.[test]'
	@touch $@

$(INTEROP_INSTALLED): pyproject.toml constraints.txt constraints-interop.txt | $(INTEROP)/bin/python
	@echo "Installing the pinned dependencies and torch, 9 GB, into $(INTEROP): some five minutes."
	$(PIP_INSTALL) --quiet setuptools wheel
	$(PIP_INSTALL) --quiet --no-build-isolation --editable '.[test,torch,interop]' \
	  -c constraints-interop.txt
	@touch $@

install: $(INSTALLED)

# At this size threads inside an operation cost more than they give: with one, a step takes 0.84 of
# the time on two cores, for the small model and the big one alike.
demo: export TF_NUM_INTRAOP_THREADS ?= 1
demo: $(INSTALLED)
	KERAS_BACKEND=tensorflow $(BIN)/python -m trainers.pretrain $(DEMO_ARGS)
	@echo "The report: $(CURDIR)/demo/report/report.html"

paper: export TF_NUM_INTRAOP_THREADS ?= 1
paper: $(INSTALLED)
	KERAS_BACKEND=tensorflow $(BIN)/python -m trainers.pretrain --workdir=$(PAPER_DIR) \
	  --plan=$(PAPER_TABLE1) --repeats=$(PAPER_REPEATS) $(PAPER_SIZE)
	KERAS_BACKEND=tensorflow $(BIN)/python -m trainers.pretrain --workdir=$(PAPER_DIR) \
	  --plan=$(PAPER_PLANS) $(PAPER_SIZE) $(PAPER_LISTS)
	@echo "The report: $(CURDIR)/$(PAPER_DIR)/report/report.html"

paper-fast: $(INSTALLED)
	$(MAKE) paper $(PAPER_FAST)

# The screening, then the finals; either may be stopped and given again.
gains: export TF_NUM_INTRAOP_THREADS ?= 1
gains: $(INSTALLED)
	KERAS_BACKEND=tensorflow $(BIN)/python -m trainers.pretrain --plan=gains --workdir=$(GAINS_DIR) \
	  $(GAINS_ARGS)
	KERAS_BACKEND=tensorflow $(BIN)/python -m trainers.pretrain --plan=gains --workdir=$(GAINS_DIR) \
	  $(GAINS_ARGS) --gains_arms=best --gains_budgets=1,3,9 --gains_seeds=5
	@echo "The report: $(CURDIR)/$(GAINS_DIR)/report/report.html"

table5: export TF_NUM_INTRAOP_THREADS ?= 1
table5: export KERAS_BACKEND = tensorflow
table5: $(INSTALLED)
	$(BIN)/python -m trainers.pretrain --plan=table5 --workdir=$(TABLE5_DIR)/pretrained \
	  $(TABLE5_PRETRAIN)
	$(BIN)/python -m glue.finetune --pretrained=$(TABLE5_DIR)/pretrained \
	  --workdir=$(TABLE5_DIR)/glue $(addprefix --data_dir=,$(GLUE_DIR)) $(TABLE5_FINETUNE)
	$(BIN)/python -m glue.report --workdir=$(TABLE5_DIR)/glue --pretrained=$(TABLE5_DIR)/pretrained

# Processes that tests start read modules that others have compiled, also where the environment says
# that nothing is to be written.
test test-torch test-interop: export PYTHONDONTWRITEBYTECODE =
test: $(INSTALLED)
	KERAS_BACKEND=tensorflow $(PYTEST) $(PYTEST_ARGS)
	KERAS_BACKEND=jax $(PYTEST) $(OTHER_PYTEST_ARGS) $(ON_JAX)

test-all:
	$(MAKE) test PYTEST_ARGS= OTHER_PYTEST_ARGS=

test-torch: $(INTEROP_INSTALLED)
	$(TORCH_PYTEST) $(ON_TORCH)

test-interop: $(INTEROP_INSTALLED)
	$(TORCH_PYTEST) tests/interop $(ON_TORCH)

faults: $(INSTALLED)
	KERAS_BACKEND=tensorflow $(BIN)/python -m tests.faults $(FAULTS_ARGS)
	KERAS_BACKEND=tensorflow $(BIN)/python -m tests.faults.fuzz $(FUZZ_ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# An environment of its own: the site is built from the text of the sources, without importing them.
DOCS := .venv-docs
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(DOCS)/.installed
	$(DOCS)/bin/mkdocs build --quiet
	@echo "The site: $(CURDIR)/site/index.html"

# Needs the system's Chromium.
check-docs: docs
	$(DOCS)/bin/python docs/check_site.py

$(DOCS)/.installed: constraints-docs.txt | $(BIN)/python
	$(BIN)/python -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --disable-pip-version-check --no-input --quiet \
	  -r constraints-docs.txt
	@touch $@

# The wheel is made from the sdist, so that it holds nothing that the checkout has by chance. Without
# isolation: setuptools is the pinned one, not the newest of the day.
WHEEL := .venv-wheel
wheel: $(WHEEL)/.installed
	rm -rf dist
	$(WHEEL)/bin/python -m build --quiet --no-isolation --outdir dist
	$(WHEEL)/bin/python -m twine check --strict dist/*

$(WHEEL)/.installed: constraints.txt constraints-wheel.txt | $(BIN)/python
	$(BIN)/python -m venv $(WHEEL)
	$(PIP_INSTALL) --quiet build setuptools twine wheel -c constraints-wheel.txt
	@touch $@

figures: export KERAS_BACKEND = tensorflow
figures: $(INSTALLED)
	$(BIN)/python -m docs.images.blocks
	$(BIN)/python -m docs.images.figures
	$(BIN)/python -m docs.images.curves
	$(BIN)/python -m docs.images.gains

# All of them run, also when one fails; then make fails.
bench: $(INSTALLED)
	@status=0; \
	for file in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
	  name=$$(basename $$file .py); echo "== $$file"; \
	  KERAS_BACKEND=tensorflow $(BIN)/python -m benchmarks.$$name || status=1; \
	done; exit $$status

clean:
	rm -rf $(VENV) $(INTEROP) $(DOCS) $(WHEEL) site build dist keras_fusion.egg-info .pytest_cache .ruff_cache \
	  .import_linter_cache
