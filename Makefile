# Two commands do everything: `make serve` and `make test`. Both make .venv first. `make help` lists all.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What a run of the tests needs. The system's come first: a C compiler is one of them.
SUITE := system-packages $(VENV)/.test

.PHONY: serve test test-all test-lowest test-newest test-compiled lint docs lock system-packages bench bench-quick bench-packages chaos abuse takeover autobahn fuzz share release wheel-compiled deb test-deb test-image nightly coverage help clean

# A terminal is shown how far pip is; a log is not.
PIP := $(BIN)/python -m pip --disable-pip-version-check $(if $(MAKE_TERMOUT),,--quiet)

# What is installed is locked, with hashes, so that a new release of a dependency changes nothing
# here before `make lock` has been run. What users install keeps the ranges of pyproject.toml.
# Only compiled.txt needs a C compiler; the tests do without it, but not in CI.
$(VENV)/.serve: pyproject.toml requirements/serve.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/serve.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test: $(VENV)/.serve requirements/test.txt requirements/compiled.txt
	$(PIP) install --require-hashes -r requirements/test.txt
	$(PIP) install --require-hashes -r requirements/compiled.txt >$(VENV)/compiled.log 2>&1 || \
	{ echo "tests: not built, see $(VENV)/compiled.log: gunicorn_h1c" >&2; [ "$(CI)" != true ]; }
	touch $@

$(VENV)/.docs: $(VENV)/.serve requirements/docs.txt
	$(PIP) install --require-hashes -r requirements/docs.txt
	touch $@

$(VENV)/.release: $(VENV)/.test requirements/release.txt
	$(PIP) install --require-hashes -r requirements/release.txt
	touch $@

# A real application on http://127.0.0.1:8000, with the embedded default configuration.
serve: $(VENV)/.serve  ## a real application on http://127.0.0.1:8000
	$(BIN)/prefork serve examples.demo:app

# Most tests wait for a process: six at a time keep two cores busy. They begin with deploy, faults and
# system, and end with the short files of unit. Compiled before, where Python is told to write no
# bytecode: else each of some thousand processes would do it for itself; pytest compiles the tests.
# Lint and the site come last, and whether they fail or not, the result of the tests is shown.
test: $(SUITE) $(VENV)/.docs  ## all tests, then lint and the documentation site
	$(BIN)/python -m compileall -q -x '/test_[^/]*$$' prefork tests examples
	@status=0; \
	$(BIN)/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder || status=$$?; \
	$(MAKE) --no-print-directory lint docs || status=1; \
	exit $$status

# Each Python from 3.11 on that is on this machine; those that are missing are named.
test-all: $(SUITE)  ## the tests on each Python that is on this machine
	$(BIN)/nox -s tests

# The ranges of pyproject.toml, from below and from above.
test-lowest: $(SUITE)  ## the tests with the lowest versions that pyproject.toml promises
	$(BIN)/nox -s lowest

test-newest: $(SUITE)  ## the tests with the newest versions of everything
	$(BIN)/nox -s newest

# The compiled build (setup.py) in an environment of its own; TESTS=tests/system/test_http.py
test-compiled: $(SUITE)  ## the tests against the compiled build
	$(BIN)/nox -s compiled $(if $(TESTS),-- $(TESTS))

lint: $(VENV)/.test  ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The documentation site; a link in it that leads nowhere is an error. It takes some seconds.
docs: $(VENV)/.docs  ## the documentation site, build/site/html/index.html
	$(BIN)/python -m tools.site

# The newest releases within the ranges of pyproject.toml, for every platform and Python.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-annotate --custom-compile-command "make lock"
LOCK = $(COMPILE) pyproject.toml --group build
lock: $(VENV)/.test  ## the newest releases into requirements/
	$(PIP) install uv
	$(LOCK) --upgrade -o requirements/serve.txt
	$(LOCK) --upgrade --constraint requirements/serve.txt \
	    --extra reload --extra wire --extra top --extra metrics --extra zstd --extra uvloop --extra websocket --group test \
	    -o requirements/test.txt
	$(COMPILE) --upgrade --group compiled -o requirements/compiled.txt
	$(LOCK) --upgrade --constraint requirements/test.txt --group release -o requirements/release.txt
	$(LOCK) --upgrade --constraint requirements/test.txt --group docs -o requirements/docs.txt

# What some tests talk to (nginx, tshark); a test skips where it can't be had, but not in CI.
system-packages:  ## the programs that some tests talk to
	sh tests/install-system-packages.sh

bench/.venv/.installed: bench/requirements.txt pyproject.toml | bench-packages
	$(PYTHON) -m venv bench/.venv
	bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check -e . \
	    --config-settings editable_mode=compat $$(grep ^matplotlib bench/requirements.txt)
	bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt || \
	grep -v '^#' bench/requirements.txt | xargs -n 1 bench/.venv/bin/python -m pip install --quiet --disable-pip-version-check || true
	touch $@

# What the peers need of the system: nginx, libev for bjoern, a C compiler.
bench-packages:  ## the programs that the bench talks to
	sh bench/install-system-packages.sh

# Side by side with other servers, about twenty minutes: writes docs/performance/ and the tables made of it.
bench: bench/.venv/.installed  ## side by side with other servers, twenty minutes
	bench/.venv/bin/python -m bench --write

# The rows that matter most, in about a minute; prints only.
bench-quick: bench/.venv/.installed  ## the rows of it that matter most, a minute
	bench/.venv/bin/python -m bench --quick

# A server under load and under faults by a seeded schedule: make chaos SECONDS=60 SEED=1
SECONDS ?= 60
chaos: $(VENV)/.test  ## a server under load and faults: SECONDS=60 SEED=1
	PREFORK_TESTS=full $(BIN)/python -m tests.faults.chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# Attacks of a worker that an attacker controls, on the master and on its siblings: make takeover SECONDS=60
takeover: $(VENV)/.test  ## attacks of a worker that was taken over: SECONDS=60 SEED=7
	$(BIN)/python -m tests.faults.takeover --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.faults.takeover --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --preload

# Attacks from outside, each with a good client beside it: make abuse SECONDS=3 SERVER=gunicorn
abuse: SECONDS := $(if $(filter command line environment,$(origin SECONDS)),$(SECONDS),3)
abuse: $(SUITE)  ## attacks with a good client beside them: SECONDS=3 SERVER=nginx
	$(BIN)/python -m tests.faults.abuse --seconds $(SECONDS) $(if $(SERVER),--server $(SERVER))

# The sections of the Autobahn test suite that take long; the others are in the tests.
autobahn: $(VENV)/.test  ## large and compressed messages of the Autobahn test suite, for the night
	$(BIN)/python -m pytest -m nightly tests/system/test_autobahn.py

# Our reading of HTTP and WebSocket against that of other parsers, and then each other reader of foreign
# bytes, on random inputs: make fuzz SECONDS=600 SEED=2. What reaches new code is kept in tests/fuzz/corpus.
fuzz: $(VENV)/.test  ## each reader of foreign bytes, on random inputs: SECONDS=600 SEED=2
	$(BIN)/python -m tests.fuzz.http --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.fuzz.websocket --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.fuzz.guided --keep --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# What an installation has below share/: man pages and completion, made from the code.
share: $(VENV)/.test  ## man pages and completion, made from the code
	$(BIN)/python -m tools.share

# Builds dist/, checks it, and runs what is installed of it; with TAG=1 the commit is tagged.
release: $(VENV)/.release  ## dist/, built, checked, installed and run; TAG=1 tags it
	$(BIN)/python -m tools.release $(if $(TAG),--tag)

# A wheel for this machine and this Python in dist/, with the way of a request compiled: setup.py.
# It is checked, installed and run, too.
wheel-compiled: $(VENV)/.release  ## a compiled wheel for this machine in dist/, installed and run
	$(BIN)/python -m tools.release --compiled

# A Debian package for the Debian and the Python of this machine; tools/debian.py says how it is made.
deb: $(VENV)/.release  ## a Debian package in dist/
	$(BIN)/python -m tools.debian

# The package in an empty Debian that debootstrap makes: install, upgrade, remove, purge. Needs root.
test-deb: $(VENV)/.release  ## the package in an empty Debian; root, minutes
	$(BIN)/python -m pytest -m nightly tests/deploy/test_debian.py

# The Dockerfile of deploy/container, step by step in an empty Debian, without an engine. Needs root.
test-image: $(VENV)/.release  ## the container image's steps in an empty Debian; root, minutes
	$(BIN)/python -m pytest -m nightly tests/deploy/test_image.py

# What takes too long for each change: every test that is marked so, the others with all of their load,
# and the bounds of the ranges.
nightly: $(SUITE) $(VENV)/.release test-lowest test-newest  ## what takes minutes: test-deb, test-lowest, test-newest, the compiled build
	$(BIN)/python -m pytest -m nightly
	PREFORK_TESTS=full $(BIN)/python -m pytest -n 4 --dist loadfile

# Coverage over all processes that the tests start and fork, as text and as coverage/index.html.
COVERAGE = COVERAGE_FILE=$(CURDIR)/coverage/data $(BIN)/coverage
coverage: $(SUITE)  ## coverage over processes: TESTS=tests/system/test_signals.py
	rm -rf coverage && mkdir coverage
	status=0; $(COVERAGE) run -m pytest -n 4 --dist loadfile $(TESTS) || status=$$?; \
	$(COVERAGE) combine --quiet && $(COVERAGE) html --quiet -d coverage && $(COVERAGE) report; \
	exit $$status

help:  ## this list
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "%-16s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

clean:  ## remove what was made here
	rm -rf $(VENV) bench/.venv bench/build build dist coverage
