# `make demo` and `make test` need Python 3.11 and make, nothing else. Everything lands in .venv and .upnext.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
LOCK    = $(VENV)/lock/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-header --quiet
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

.DEFAULT_GOAL := help
.PHONY: help setup demo test fuzz bench-ingest bench-tick bench-wide bench-dispatch bench-edge bench-within bench-statistics bench-analytics bench-demo bench-report bench-year soak docs pictures web dev down lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## virtual environment with the locked packages

$(VENV)/.ready: requirements.txt pyproject.toml setup.py
	@echo "Installing the locked packages into $(VENV): 1.2 GB on disk, a minute or two."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.ready requirements-dev.txt
	@echo "Installing what the tests need beside it."
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

demo: setup ## run the whole loop on Otto, the demo product
	@$(BIN)/python -m demo

test: $(VENV)/.dev ## ruff, formatting, types, dbt parse and unit tests, pytest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 4 --dist worksteal

fuzz: $(VENV)/.dev ## features and segments against a reference, 500 random histories; EXAMPLES= of 10 each
	UPNEXT_FUZZ_EXAMPLES=$(or $(EXAMPLES),50) $(BIN)/python -m pytest -q tests/exactness

bench-ingest: $(VENV)/.dev $(VENV)/bench/.ready ## how fast files are loaded; EVENTS=, STORED=, ROUNDS=
	$(BIN)/python -m tests.benchmarks.ingest --events $(or $(EVENTS),2000000) --stored $(or $(STORED),0) \
		--rounds $(or $(ROUNDS),2)

bench-tick: $(VENV)/.dev $(VENV)/bench/.ready ## what an hourly tick costs; EVENTS=10000000[,...], TICKS=
	$(BIN)/python -m tests.benchmarks.tick --events $(or $(EVENTS),10000000) --ticks $(or $(TICKS),5)

bench-wide: $(VENV)/.dev ## what 500 features and 200 segments cost, beside 20 and 10; EVENTS=, TICKS=
	$(BIN)/python -m tests.benchmarks.wide --events $(or $(EVENTS),500000) --ticks $(or $(TICKS),5)

bench-dispatch: $(VENV)/.dev ## what it costs to move people and to send; MAILS=, ENTRIES=, ROUNDS=, TRIES=
	$(BIN)/python -m tests.benchmarks.dispatch --mails $(or $(MAILS),20000) --entries $(or $(ENTRIES),1000000) \
		--rounds $(or $(ROUNDS),2)
	$(BIN)/python -m tests.benchmarks.latency --tries $(or $(TRIES),10)

bench-edge: $(VENV)/.dev ## what the edge costs, beside simpler servers; REQUESTS=, ROUNDS=
	$(BIN)/python -m tests.benchmarks.edge --requests $(or $(REQUESTS),3000) --rounds $(or $(ROUNDS),5)

bench-within: $(VENV)/.dev ## seconds from an event to what follows from it; STORED=, TRIES=
	$(BIN)/python -m tests.benchmarks.within --stored $(or $(STORED),1000000) --tries $(or $(TRIES),20)

bench-statistics: $(VENV)/.dev ## what the statistics promise, by simulation; RUNS=
	$(BIN)/python -m tests.benchmarks.proof --runs $(or $(RUNS),4000)

bench-analytics: $(VENV)/.dev $(VENV)/bench/.ready ## what results cost, beside tea-tasting; USERS=, ROUNDS=
	$(BIN)/python -m tests.benchmarks.analytics --users $(or $(USERS),1000000) --rounds $(or $(ROUNDS),3)

bench-demo: $(VENV)/.dev ## whether the demo's intervals hold its true lifts; SEEDS=
	$(BIN)/python -m tests.benchmarks.lifts --seeds $(or $(SEEDS),100)

$(VENV)/bench/.ready: tests/benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)/bench
	$(VENV)/bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

bench-year: $(VENV)/.dev ## how a home grows in 18 months of ticks on 20,000 users; USERS=, TICKS= (a month)
	$(BIN)/python -m tests.benchmarks.year --users $(or $(USERS),20000) --ticks $(or $(TICKS),24)

soak: $(VENV)/.dev ## half an hour of clients, ticks, mails and edits at once, counted by the clients; MINUTES=
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30)

bench-report: $(VENV)/.dev ## how large the report is, and how long a browser draws it
	$(BIN)/python -m tests.benchmarks.report

docs: $(VENV)/.dev ## build the documentation as a site in .upnext-site; needs no network
	PYTHONWARNINGS=ignore NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "written: .upnext-site/index.html; its search works where it is served, as by .venv/bin/mkdocs serve"

pictures: $(VENV)/.dev ## take the tables and pictures of README and guides anew (needs chromium)
	$(BIN)/python -m demo.docs

web: ## rebuild the browser script (needs Node)
	cd upnext/edge/web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

dev: setup ## the Dagster UI on http://127.0.0.1:3000, the edge on :8790, Otto's website on :8791
	@$(BIN)/python -m demo.dev

down: ## stop the embedded Postgres
	$(BIN)/upnext down

lock: setup ## regenerate requirements*.txt from pyproject.toml
	$(BIN)/python -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	$(LOCK) pyproject.toml -o requirements.txt
	$(LOCK) pyproject.toml --extra dev -c requirements.txt -o requirements-dev.txt
	$(LOCK) tests/benchmarks/requirements.in -o tests/benchmarks/requirements.txt
	rm -rf $(VENV)/lock

clean: ## remove the virtual environment and all state
	-$(BIN)/upnext down
	rm -rf $(VENV) .upnext
