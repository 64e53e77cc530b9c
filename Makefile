# make run   the whole pipeline on the committed settings; make test   the tests. Both set up .venv first.
# make test-parity   networks, operations and explainers against torchvision, timm, scikit-image, grad-cam and captum, installed beside the
#                    environment.
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := src

READY := .venv/.ready

PARITY := .venv/parity

FUZZ ?=

.PHONY: run test test-slow test-parity torture torture-sample fuzz check format compose deps settings benchmarks lock clean

run: $(READY)
	retinue repro
	@retinue where

# Two at a time. The default ones take five minutes on two cores; the slow ones, which run whole trainings and sweeps,
# several times as long.
test: $(READY)
	pytest -m "not slow" --numprocesses 2 --dist worksteal

test-slow: $(READY)
	pytest -m slow --numprocesses 2 --dist worksteal

test-parity: $(READY) $(PARITY)/.ready
	RETINUE_PARITY=$(PARITY) pytest tests/parity

# A million random inputs for all readers, or as FUZZ says: make fuzz FUZZ='--targets image --inputs 10000 --seed 1'.
fuzz: $(READY)
	python -m tests.fuzz $(FUZZ)

# Kills, failing calls and doubled runs, for 35 minutes; what is in .cache/torture is not run again, so that a second call
# does the rest. The sample takes two.
torture: $(READY)
	python -m tests.torture --minutes 33 --page docs/reliability.md

torture-sample: $(READY)
	python -m tests.torture --minutes 1 --sample

# Not into the environment: the published torchvision does not import on the CPU build of torch, and breaks Lightning.
$(PARITY)/.ready: tests/parity/requirements.txt | $(READY)
	pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(PARITY) --requirement $<
	touch $@

check: $(READY)
	ruff format --check .
	ruff check .
	mypy
	retinue compose --check
	python tools/dependencies.py --check
	python tools/settings_table.py --check

format: $(READY)
	ruff format .
	ruff check --fix .

compose: $(READY)
	retinue compose

# Into dvc.yaml, the code that each stage imports.
deps: $(READY)
	python tools/dependencies.py

# Into docs/settings.md, types, ranges, defaults and meanings of the settings.
settings: $(READY)
	python tools/settings_table.py

benchmarks: $(READY)
	python -m benchmarks

# Newest versions that pyproject.toml admits, from a fresh environment; then run the tests and commit.
lock:
	rm -rf .venv/lock && $(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet torch==2.13.0 setuptools
	.venv/lock/bin/pip install --quiet ".[dev]"
	{ echo "# Every package the project and its tests run on, pinned. Made by \`make lock\`."; \
	  .venv/lock/bin/pip list --format=freeze --exclude pip --exclude retinue | sed 's/+cpu$$//'; } > requirements.lock

clean:
	rm -rf .venv .cache

# requirements.lock pins every package; the project itself is installed without its dependencies, for its command.
$(READY): requirements.lock pyproject.toml src/retinue/dashboard/plots_page.py
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("error: Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + ". Name another with make PYTHON=python3.12")'
	test -d .venv || $(PYTHON) -m venv .venv
	pip install --quiet --disable-pip-version-check --requirement requirements.lock
	pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	retinue plots-page .dvc/tmp/plots.html
	touch $@
