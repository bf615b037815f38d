# The commands. Everything lives in .venv; nothing is installed outside of it.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
TEST_STAMP := .venv/.installed-test

# Files of tests beside each other: much of their time is spent waiting for a server, a terminal or a process.
TEST_PROCESSES ?= 3

.PHONY: install demo test check chaos mutants bench lint screens clean

install: $(STAMP)

demo: $(STAMP)
	@$(BIN)/revector demo

# One thread each for numpy and torch: test processes beside each other would only wait for each other's. And compiled
# modules are kept, whatever the machine's setting: a run starts hundreds of Python processes.
test check: export OMP_NUM_THREADS := 1
test check chaos mutants: export PYTHONDONTWRITEBYTECODE :=

test: $(TEST_STAMP)
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

# Lint, types and the unit tests, which need no server and draw no screen: within a minute.
check: $(TEST_STAMP)
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n auto -m "not (database or faults or screen or slow or terminal)"

# The tests of faults in their long form: 200 kills, 10 restarts … (`make test` runs a short one).
chaos: $(TEST_STAMP)
	REVECTOR_CHAOS=1 $(BIN)/python -m pytest tests/faults

# Plants faults one at a time, and sees that a test fails for each: before a release.
mutants: $(TEST_STAMP)
	$(BIN)/python -m tests.mutants

# All of them, or those named after it: make bench guards
ifeq ($(firstword $(MAKECMDGOALS)),bench)
BENCHMARKS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(BENCHMARKS)
$(BENCHMARKS): bench
	@:
endif

bench: $(TEST_STAMP)
	$(BIN)/python -m tests.benchmarks $(BENCHMARKS)

screens: $(TEST_STAMP)
	$(BIN)/python -m tests.screenshots

lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("revector needs Python 3.11 or newer, not " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

# The tests drive the console in a real terminal, and search through a real pooler, which Debian has in /usr/sbin.
$(TEST_STAMP): $(STAMP)
	@for program in tmux pgbouncer; do PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null \
	    || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq --no-install-recommends $$program; } \
	    || { echo "make test needs $$program: install it with your system's package manager" >&2; exit 1; }; done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[documents,sentence-transformers,parquet,serve]' --group dev
	@touch $@

clean:
	rm -rf .venv
