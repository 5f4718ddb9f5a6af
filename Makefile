# `make app` and `make test` do all the set-up on a machine that has Python 3.11 or later.

PYTHON ?= python3
BIN := .venv/bin
TWO := $(BIN)/pytest -q -n 2 --dist worksteal --durations=10
STAMP := .venv/installed

.PHONY: app test long quick check unit notebooks-run notebooks browser backbone bench mutation oldest \
  external transformers-range clean

app: backbone
	$(BIN)/streamlit run app.py

test: check unit notebooks-run

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Two at a time, one thread each, whole files where that may be: what a file shares is made once.
# Pages have two servers, one for each worker; where a stop is timed, nothing else runs beside it.
TIMED := tests/browser/test_three.py
unit: browser backbone
	OMP_NUM_THREADS=1 $(TWO) -m "not browser and not long"
	OMP_NUM_THREADS=1 $(TWO) -m "browser and not long" tests/browser --ignore $(TIMED)
	$(BIN)/pytest -q --durations=3 -m "browser and not long" $(TIMED)

# Every command given every kind of bad file, every page hostile names, and simulations.
long: browser backbone
	OMP_NUM_THREADS=1 $(TWO) -m "long and not browser"
	$(BIN)/pytest -q --durations=10 -m "long and browser"

# What needs no weights and no browser. The folder for weights is one
# that does not exist, so a test that needs them fails here.
quick: check
	SKIPVIZ_HOME=$(CURDIR)/build/no-models OMP_NUM_THREADS=1 $(TWO) \
	  -m "not browser and not model and not slow and not long"

# Runs the notebooks and leaves them as they are.
notebooks-run: backbone
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(TWO) --nbmake --nbmake-timeout=1200 examples

# Runs the notebooks and keeps what they show.
notebooks: backbone
	$(BIN)/python examples/execute.py

# The page is tested in a real browser; without one the run fails.
browser: $(STAMP)
	$(BIN)/python -m tests.browser.chromium

backbone: $(STAMP)
	$(BIN)/skipviz models pull smollm2-135m

bench: backbone
	PYTHONPATH=. $(BIN)/python benchmarks/recording.py
	PYTHONPATH=. $(BIN)/python benchmarks/page.py
	PYTHONPATH=. $(BIN)/python benchmarks/audit.py

# Puts small faults into the code and counts those that a test finds; takes about half an hour.
mutation: $(STAMP)
	$(BIN)/python benchmarks/mutation.py

# The quick tests with the oldest versions that pyproject.toml allows, in an environment of its own.
OLDEST := build/oldest
oldest: $(STAMP)
	$(BIN)/python -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --resolution lowest-direct \
	  --all-extras -r pyproject.toml
	$(OLDEST)/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -q -n 2 -W default::DeprecationWarning \
	  -m "not browser and not model and not slow and not long"

# Packages that others wrote, each in an environment of its own, recorded and compared.
external: $(STAMP)
	$(BIN)/python external_tests/run.py

# Both ends of the versions of transformers that pyproject.toml allows; the rest is shared.
transformers-range: $(STAMP)
	$(BIN)/python external_tests/transformers_range.py

clean:
	rm -rf .venv build dist *.egg-info .*_cache .hypothesis tests/browser/artifacts

OLD := skipviz needs Python 3.11 or later. Install one, or name it: make PYTHON=/path/to/python3.11

$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || { \
	    echo "$(OLD)" >&2; exit 1; }; \
	  $(PYTHON) -m venv .venv; }
	@echo 'Installing into .venv; the first time takes some minutes.'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	  -c constraints.txt -e '.[dev]'
	@# On all cores, which pip does on one; some packages bring templates that are no Python.
	@$(BIN)/python -m compileall -q -j 0 $(BIN)/../lib >/dev/null 2>&1 || true
	@touch $@
