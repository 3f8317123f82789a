# Two commands do everything: `make serve` and `make test`. Both make .venv first.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve test lint system-packages bench bench-quick bench-packages chaos clean

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[reload,wire,top,metrics,zstd,test]'
	touch $@

# A real application on http://127.0.0.1:8000, with the embedded default configuration.
serve: $(VENV)/.installed
	$(BIN)/prefork serve examples.demo:app

# Most tests wait for a process: four at a time keep two cores busy. Compiled before, where Python
# is told to write no bytecode: else each of some thousand processes would do it for itself.
test: $(VENV)/.installed lint system-packages
	$(BIN)/python -m compileall -q prefork tests examples
	$(BIN)/python -m pytest -n 4 --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# What some tests talk to (nginx, tshark); a test skips where it can't be had, but not in CI.
system-packages:
	sh tests/install-system-packages.sh

bench/.venv/.installed: bench/requirements.txt pyproject.toml | bench-packages
	$(PYTHON) -m venv bench/.venv
	bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check -e . \
	    --config-settings editable_mode=compat $$(grep ^matplotlib bench/requirements.txt)
	bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt || \
	grep -v '^#' bench/requirements.txt | xargs -n 1 bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check || true
	touch $@

# What the peers need of the system: nginx, libev for bjoern, a C compiler.
bench-packages:
	sh bench/install-system-packages.sh

# Side by side with other servers, about ten minutes: writes docs/performance.md and its charts.
bench: bench/.venv/.installed
	bench/.venv/bin/python -m bench --write

# The rows that matter most, in under two minutes; prints only.
bench-quick: bench/.venv/.installed
	bench/.venv/bin/python -m bench --quick

# A server under load and under faults by a seeded schedule: make chaos SECONDS=60 SEED=1
SECONDS ?= 60
chaos: $(VENV)/.installed
	$(BIN)/python -m tests.faults.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf $(VENV) bench/.venv bench/build
