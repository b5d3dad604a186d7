# `make help` lists what there is. Every target that needs the environment makes it first.

SHELL := /bin/bash
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

RECIPE ?= recipes/coco_mini.yaml
COCO ?= data/coco2014
SET ?=
SPLIT ?=
RUN ?=
PROMPT ?= A man riding a wave on a surfboard.
OUT ?= samples
RUNS ?= runs
CELL ?=
COMPARED ?=
COMPARISON ?= comparison
CELLS := concat_early concat_intermediate cross_early cross_intermediate
SEEDS ?= 1 2 3
# Up to three shapes of a few kinds: a world that a small model learns on a CPU. `SCENES=...` gives another one.
SMALL_WORLD := --max-count 3 --colors red green blue yellow --shapes circle square triangle --patterns plain --min-size 16
SCENES ?= --num-images 20000 --num-held-out-images 1000 $(SMALL_WORLD)
DEMO ?= demo
DEMO_SCENES ?= --num-images 3000 $(SMALL_WORLD)
DEMO_FOLDERS = --set data.coco_root="$(DEMO)/scenes" --set data.shards_root="$(DEMO)/shards" --set runtime.runs_root="$(DEMO)/runs"
DEMO_SET ?=
DEMO_PROMPTS ?= recipes/demo_prompts.txt
DEMO_NUM_IMAGES ?= 130
export PROMPT
PORT ?= 5000

# The tests' environment: CPU, one thread per process, no network.
TEST_ENVIRONMENT := DS_ACCELERATOR=cpu OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false \
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
# Without real data the tests that need it are deselected; tests/conftest.py counts them in the last lines.
MARKS := not memorise and not matrix and not slow_fault and not soak$(if $(IFVIT_TEST_DATA),, and not coco)

.DEFAULT_GOAL := help
.PHONY: help setup demo clean-demo coco shards train sample evaluate compare scenes-shards scenes-cells ui check test test-matrix test-faults soak \
	memorise bench gpu-check clean $(foreach cell,$(CELLS),$(foreach seed,$(SEEDS),scenes-$(cell)-$(seed)))

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(STAMP)  ## the environment in .venv (PIP_ARGS=... goes to pip, PYTHON=... makes it)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON): Python 3.11 or newer is needed; PYTHON=python3.11 make ..."; exit 1; }
	@test -x $(BIN)/python || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing torch, as constraints.txt has it"
	@$(BIN)/pip install -q $(PIP_ARGS) -c constraints.txt torch
	@echo "installing ifvit and the rest, about two minutes"
	@$(BIN)/pip install -q $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## scenes -> shards -> training -> samples -> counting table, in minutes; again: goes on, or reuses what is there
	@$(BIN)/python -m data_prep scenes --out "$(DEMO)/scenes" $(DEMO_SCENES)
	@$(BIN)/python -m data_prep shards recipes/demo.yaml $(DEMO_FOLDERS) $(DEMO_SET)
	@$(BIN)/ifvit train recipes/demo.yaml $(DEMO_FOLDERS) $(DEMO_SET)
	@$(BIN)/ifvit sample "$(DEMO)/runs/demo" --prompts-file "$(DEMO_PROMPTS)" --seed 0 --out "$(DEMO)/samples"
	@$(BIN)/ifvit evaluate "$(DEMO)/runs/demo" --num-images $(DEMO_NUM_IMAGES)
	@$(BIN)/ifvit sample recipes/scenes/trained --prompts-file "$(DEMO_PROMPTS)" --guidance-scale 2 --seed 0 --out "$(DEMO)/samples_trained"
	@echo
	@echo "pictures: $(DEMO)/samples/grid.png, and $(DEMO)/runs/demo/samples from while it trained"
	@echo "          $(DEMO)/samples_trained/grid.png: a model trained for longer, recipes/scenes/trained"
	@echo "metrics:  make ui RUNS=$(DEMO)/runs"

clean-demo:  ## remove what `make demo` made
	@rm -rf "$(DEMO)/scenes" "$(DEMO)/shards" "$(DEMO)/runs" "$(DEMO)/samples" "$(DEMO)/samples_trained"
	@rmdir "$(DEMO)" 2>/dev/null || true

coco: $(STAMP)  ## COCO=data/coco2014: COCO 2014 from the network, 20 GB (29 GB while it unpacks); again: goes on where it stopped
	$(BIN)/python -m data_prep coco --out "$(COCO)"

shards: $(STAMP)  ## RECIPE=... SET="--set ..." SPLIT=...: images and captions to tars of latents and text
	$(BIN)/python -m data_prep shards $(RECIPE) $(SET) $(if $(SPLIT),--split $(SPLIT))

train: $(STAMP)  ## RECIPE=... SET="--set ...": train, or go on where the run stopped
	$(BIN)/ifvit train $(RECIPE) $(SET)

sample: $(STAMP)  ## RUN=runs/NAME PROMPT="..." OUT=...: images for a caption
	@test -n "$(RUN)" || { echo "RUN: give the run's folder, make sample RUN=runs/NAME"; exit 2; }
	$(BIN)/ifvit sample "$(RUN)" --prompt "$$PROMPT" --out "$(OUT)"

ui: $(STAMP)  ## RUNS=runs PORT=5000: MLflow on 127.0.0.1
	@test -f "$(RUNS)/mlflow.db" || { echo "RUNS: $(RUNS)/mlflow.db is not there; train first, or give RUNS=FOLDER"; exit 2; }
	@! $(BIN)/python -c 'import socket; socket.create_connection(("127.0.0.1", $(PORT)), 1)' 2>/dev/null \
		|| { echo "PORT: $(PORT) is in use; give another one, make ui PORT=5001"; exit 2; }
	@echo "open http://127.0.0.1:$(PORT)/#/experiments/1/runs (Ctrl-C ends it)"
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT) \
		--workers 1 --backend-store-uri "sqlite:///$$(cd "$(RUNS)" && pwd)/mlflow.db"

scenes-shards: $(STAMP)  ## SCENES="--num-images ...": the world of recipes/scenes and its shards
	$(BIN)/python -m data_prep scenes --out data/scenes --seed 0 $(SCENES)
	$(BIN)/python -m data_prep shards recipes/scenes/cross_intermediate.yaml

# One target for each cell and seed, so that `make -j2 scenes-cells` trains two at once.
define SCENES_RUN
scenes-$(1)-$(2): scenes-shards
	$$(BIN)/ifvit train recipes/scenes/$(1).yaml --set name=scenes_$(1)_$(2) --set seed=$(2) $$(SET)
	$$(BIN)/ifvit evaluate runs/scenes_$(1)_$(2) --num-images 500
endef
$(foreach cell,$(CELLS),$(foreach seed,$(SEEDS),$(eval $(call SCENES_RUN,$(cell),$(seed)))))

scenes-cells: $(foreach cell,$(CELLS),$(foreach seed,$(SEEDS),scenes-$(cell)-$(seed)))  ## SEEDS="1 2 3" COMPARISON=FOLDER: the four cells on scenes, trained, evaluated and compared
	$(BIN)/ifvit compare $(foreach cell,$(CELLS),$(foreach seed,$(SEEDS),runs/scenes_$(cell)_$(seed))) --out "$(COMPARISON)"

evaluate: $(STAMP)  ## RUN=runs/NAME: images for captions of other images than it was trained on, measured
	@test -n "$(RUN)" || { echo "RUN: give the run's folder, make evaluate RUN=runs/NAME"; exit 2; }
	$(BIN)/ifvit evaluate "$(RUN)"

compare: $(STAMP)  ## COMPARED="runs/A runs/B": evaluated runs in one table and figure
	@test -n "$(COMPARED)" || { echo 'COMPARED: give the runs, make compare COMPARED="runs/A runs/B"'; exit 2; }
	$(BIN)/ifvit compare $(COMPARED) --out "$(COMPARISON)"

check: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP)  ## all tests but the slower suites below; IFVIT_TEST_DATA=FOLDER adds those on real COCO images
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -m "$(MARKS)" -n 2 --dist loadfile --no-loadscope-reorder

test-matrix: $(STAMP)  ## every pair of ZeRO stage and rank count: saved at one, loaded at the other; three minutes
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -m matrix tests/distributed

test-faults: $(STAMP)  ## every fault of the table, the slow ones too; writes tests/faults/README.md; five minutes
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -m "fault and not soak" -n 2 --dist loadfile --fault-table tests/faults/README.md

soak: $(STAMP)  ## eight minutes of training killed about every 20 s, and beside it a run whose memory must stay flat; 10 minutes
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -m soak -n 2 --dist loadfile -rP --fault-table tests/faults/README.md

memorise: $(STAMP)  ## CELL=...: each of the four cells (or one) learns eight real images by heart; needs IFVIT_TEST_DATA
	@$(TEST_ENVIRONMENT) $(BIN)/pytest -m memorise -rP $(if $(CELL),-k $(CELL),-n 2)

bench: $(STAMP)  ## a training step of the four cells in fp32, in its parts, relative to concat_early; on an idle machine, minutes
	$(BIN)/ifvit bench step $(CELLS:%=recipes/coco256/%.yaml) --set train.precision=fp32 $(SET)

gpu-check: $(STAMP)  ## on a GPU machine: everything that only a GPU shows, in 8 minutes; writes gpu-check.json
	$(BIN)/python -m ifvit.benchmark.gpu_check --out gpu-check.json

clean:  ## remove caches and the environment; runs, data and demo stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
