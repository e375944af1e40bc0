# `make help` says what there is. Variables may be given on the command line: make setup MMCV=full
TORCH ?= torch==2.13.0
MMCV ?= lite
STACK ?= openmmlab
PYTHON ?= python3
USE_ACTIVE ?=
DEMO_CONFIG ?= configs/mini/remax_mnv3-s_1xb8-1k_mini-129.py
DEMO_DIR ?= work_dirs/demo
DEMO_DATA ?= data/mini_panoptic
PYTEST_ARGS ?=
REPORT_DIR ?= work_dirs/gpu_report
BUDGET ?= 600
CORES := $(shell nproc 2>/dev/null || echo 2)
# For `make test`; each needs about 2 GB of memory.
TEST_PROCESSES ?= $(shell echo $$(( $(CORES) > 8 ? 8 : $(CORES) )))

# One environment for each choice of stack and mmcv, so that they can stand side by side.
VENV ?= .venv$(patsubst -openmmlab,,-$(STACK))$(patsubst -lite,,-$(MMCV))
ifneq ($(filter-out openmmlab onedl,$(STACK)),)
$(error Expected STACK to be openmmlab or onedl, but got $(STACK))
endif
ifneq ($(filter-out lite full,$(MMCV)),)
$(error Expected MMCV to be lite or full, but got $(MMCV))
endif

ifeq ($(USE_ACTIVE),)
RUN := $(VENV)/bin/python
READY := $(VENV)/ready
else
RUN := $(PYTHON)
READY := check-active
endif
INSTALL_DOCS := $(if $(USE_ACTIVE),echo "USE_ACTIVE: install the extra first: pip install -e '.[docs]'" && exit 1, \
$(VENV)/bin/python -m pip install --quiet --no-build-isolation -e '.[docs]')

SOURCES := $(wildcard remax_mm configs tools tests demo docs)
LOG := $(VENV)/setup.log
# At most 4, because these networks feed no more. Half of the cores, because where anything else wants a core, threads
# that wait for each other lose far more than they gain.
THREADS = $(shell n=$$(( $(CORES) / 2 )); echo $$(( n < 1 ? 1 : n > 4 ? 4 : n )))
STARTED := $(shell date +%s)
export OMP_NUM_THREADS ?= $(THREADS)
export PYTHONUNBUFFERED = 1
# For USE_ACTIVE, where this checkout may not be installed.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup check-active demo docs gpu-report test test-all test-cuda lint format FORCE

help:  ## Show this list
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@echo 'Variables:'
	@echo '  TORCH=$(TORCH)  the requirement, may carry pip options such as --index-url'
	@echo '  STACK=$(STACK)  openmmlab (mmengine, mmcv, mmdet, mmsegmentation) or onedl (their maintained forks)'
	@echo '  MMCV=$(MMCV)  lite (nothing is compiled) or full (compiled ops, needs a compiler and about 15 minutes)'
	@echo '  PYTHON=$(PYTHON)  makes the environment $(VENV), named by VENV'
	@echo '  USE_ACTIVE=1  use $(PYTHON) as it is instead, installing nothing'
	@echo '  DEMO_CONFIG=$(DEMO_CONFIG)'
	@echo '  DEMO_DIR=$(DEMO_DIR)  PYTEST_ARGS=$(PYTEST_ARGS)'
	@echo '  REPORT_DIR=$(REPORT_DIR)  BUDGET=$(BUDGET)  folder and seconds of the target gpu-report'
	@echo '  TEST_PROCESSES=$(TEST_PROCESSES)  processes of the target test'

# ---- environment

setup: $(READY)  ## Make the Python environment (demo and test also do this)
	@$(RUN) -c 'from remax_mm.compat import host_versions; \
	import torch; print(*(" ".join(v) for v in [("torch", torch.__version__), *host_versions().values()]), sep=", ")'

check-active:
	@$(PYTHON) -c 'import remax_mm' || { \
	echo 'USE_ACTIVE: $(PYTHON) cannot import remax_mm (see above); leave USE_ACTIVE out to get an environment.'; \
	exit 1; }

# What the environment was asked to be; the file changes only when that does.
$(VENV)/wanted: FORCE
	@echo '$(STACK) $(MMCV) $(TORCH)' | cmp -s - $@ || { \
	mkdir -p $(VENV) && echo '$(STACK) $(MMCV) $(TORCH)' > $@; }

COMMA := ,
# $(call step,number,what,command): says what happens, keeps the noise in the log, shows its end on failure.
define step
@echo '[$(1)/4] $(2) ...'
@{ $(3); } >> $(LOG) 2>&1 || { \
tail -n 15 $(LOG); echo 'Failed: $(2). The full output is in $(LOG).'; exit 1; }
endef

PIP := $(VENV)/bin/python -m pip install
# mmcv 2.1.0 is built with pkg_resources, which newer setuptools lack, and against the torch that is there.
BUILD_TOOLS := 'setuptools<81' wheel ninja psutil
HOST_openmmlab_lite := $(PIP) mmcv-lite==2.1.0 mmengine==0.10.7 mmdet==3.3.0 mmsegmentation==1.2.2
HOST_openmmlab_full := $(PIP) $(BUILD_TOOLS) && $(PIP) --no-build-isolation mmcv==2.1.0 mmengine==0.10.7 \
	&& $(PIP) mmdet==3.3.0 mmsegmentation==1.2.2
# Built in pip's own environment, which has no torch, onedl-mmcv comes out without ops.
HOST_onedl_lite := $(PIP) onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1 \
	onedl-mmsegmentation==1.4.2
HOST_onedl_full := $(PIP) $(BUILD_TOOLS) && $(PIP) --no-build-isolation --no-binary onedl-mmcv onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 \
	&& $(PIP) onedl-mmdetection==3.5.1 onedl-mmsegmentation==1.4.2

$(VENV)/ready: $(VENV)/wanted setup.cfg pyproject.toml
	$(call step,1,making $(VENV) with $(PYTHON); what pip says goes to $(LOG),$(PYTHON) -m venv $(VENV))
	$(call step,2,installing $(TORCH),$(PIP) $(TORCH))
	$(call step,3,installing the $(STACK) stack with mmcv $(MMCV),$(HOST_$(STACK)_$(MMCV)))
	$(call step,4,installing remax_mm and its tools,$(PIP) 'setuptools<81' wheel \
	&& $(PIP) --no-build-isolation -e '.[$(STACK)$(COMMA)tools$(COMMA)dev]')
	@touch $@
	@echo "Set up in $$(( $$(date +%s) - $(STARTED) )) s."

# ---- what it is for

# The demo loads its images in the training process and takes the machine for itself.
demo: THREADS = $(shell echo $$(( $(CORES) > 4 ? 4 : $(CORES) )))
demo: $(READY)  ## Draw a small dataset, train ReMaX on it, show its PQ and pictures
	$(RUN) tools/dataset_converters/make_mini_panoptic.py $(DEMO_DATA)
	$(RUN) tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_DIR)
	$(RUN) tools/test.py $(DEMO_CONFIG) $$(cat $(DEMO_DIR)/last_checkpoint) --work-dir $(DEMO_DIR) \
	--show-dir $(CURDIR)/$(DEMO_DIR)/pictures
	@echo "Done in $$(( $$(date +%s) - $(STARTED) )) s. Checkpoint and logs: $(DEMO_DIR)"
	@echo "Pictures of input, ground truth and prediction: $(DEMO_DIR)/pictures"

docs: $(READY)  ## Build the documentation site in build/site; a warning is an error
	@$(RUN) -c 'import material, mkdocstrings_handlers.python' 2>/dev/null || { $(INSTALL_DOCS); }
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict
	@echo 'Start page: build/site/index.html; $(RUN) -m mkdocs serve shows the pages while you edit them.'

gpu-report: $(READY)  ## Measure training and inference on a GPU and write a report; the same command resumes
	$(RUN) tools/analysis_tools/gpu_report.py --out $(REPORT_DIR) --budget $(BUDGET)

test: $(READY)  ## Run the tests, without the slow ones
	$(RUN) -m pytest -m 'not slow' -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_ARGS)

test-all: $(READY)  ## Run all tests
	$(RUN) -m pytest $(PYTEST_ARGS)

test-cuda: $(READY)  ## Run the tests that need a GPU, or say why they are skipped
	$(RUN) -m pytest tests/cuda -rs $(PYTEST_ARGS)

lint: $(READY)  ## Check style, types and spelling
	@status=0; for check in \
	'flake8 $(SOURCES)' \
	'isort --check --diff --quiet $(SOURCES)' \
	'yapf --diff --parallel --recursive $(SOURCES)' \
	'mypy' \
	'codespell_lib $(SOURCES) README.md CHANGELOG.md CONTRIBUTING.md'; do \
	echo "$$check"; $(RUN) -m $$check || status=1; done; exit $$status

format: $(READY)  ## Sort imports and lay out the code
	$(RUN) -m isort --quiet $(SOURCES)
	$(RUN) -m yapf --in-place --parallel --recursive $(SOURCES)
