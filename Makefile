# make demo, make test, make lint: each builds .venv first where it is missing or older than pyproject.toml.

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint format clean

demo: $(INSTALLED)
	$(VENV)/bin/swiftsight demo --source sample --output demo_output --json demo_output/detections.json
	$(VENV)/bin/swiftsight demo bisenet_shufflenet_v2_x0_5 --source sample --background blur --output demo_output/cutout

# One process a core, each with one thread: torch's own threads would fight over the same cores.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest --numprocesses auto --maxprocesses 4

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

format: $(INSTALLED)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info demo_output .pytest_cache .ruff_cache .mypy_cache

# The oracle of the segmentation metric's test. It asks for a backport called `typing`, which breaks Python 3.11.
WITHOUT_DEPENDENCIES := cityscapesscripts==2.3.0 pyquaternion

# --no-compile: Python compiles what it imports on first use; compiling all of torch would cost a minute.
$(INSTALLED): pyproject.toml
	@found=; for python in python3.11 python3 python; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo "Python 3.11 or newer is needed, and none was found on the PATH." >&2; exit 1; fi; \
	echo "$$found -m venv $(VENV)"; $$found -m venv $(VENV)
	$(PYTHON) -m pip install --no-compile --disable-pip-version-check --editable '.[demo,dev,fast]'
	$(PYTHON) -m pip install --no-compile --disable-pip-version-check --no-deps $(WITHOUT_DEPENDENCIES)
	@touch $@
