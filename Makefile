# Everything here sets itself up: the first target that needs it makes .venv from the hashed lock.
# Uses uv where it is present, plain pip otherwise.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LINTERS := build/linters
# Processes that share the tests. Their models' threads wait asleep, since others want the cores meanwhile;
# and matrices as small as theirs are done before a second thread has begun.
WORKERS ?= 2
# Bytecode is kept whatever the shell says: without it, every process compiles five thousand modules anew.
unexport PYTHONDONTWRITEBYTECODE
# Benchmarks use libraries without types, and of pandas what its stubs do not know.
LOOSELY := --follow-imports silent --ignore-missing-imports --disable-error-code operator --no-warn-return-any --allow-subclassing-any
UV := $(shell command -v uv 2>/dev/null)

.PHONY: run ui test test-slow style check format lock evidently kubernetes duckdb2 linters audit clean

run: $(READY)  ## a synthetic retailer, from landed files to published forecasts
	$(BIN)/turnover demo

ui: $(READY)  ## Dagster's web page and daemon on loopback
	$(BIN)/turnover ui

test: $(READY)  ## every test and doctest but the slow ones, by WORKERS processes
	OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow" --doctest-modules turnover_assets turnover_assets_tests

test-slow: $(READY)  ## whole runs, Dagster's daemon, a browser, longer fuzzes
	OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m slow turnover_assets_tests

style: $(READY)  ## style, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=benchmarks $(BIN)/mypy $(LOOSELY) benchmarks/*.py
	$(BIN)/lint-imports

check: style test  ## style, types, layers, then every test

evidently: $(READY)  ## what Evidently's reports need beside the rest (optional)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	  -r requirements-evidently.lock

kubernetes: $(READY)  ## what runs Dagster's runs as jobs of Kubernetes, to hold the values against it (optional)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	  -r requirements-kubernetes.lock

duckdb2: $(READY)  ## DuckDB 2 in place of the locked one, to test with it too; make clean undoes it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	  -r deploy/locks/duckdb2.lock

linters: $(LINTERS)/.ready  ## what tests of workflows, manifests, images and scripts use where it is there (optional)

audit: $(LINTERS)/.ready  ## known vulnerabilities in what is locked
	for lock in requirements*.lock deploy/locks/*.lock; do \
	  echo "$$lock"; $(LINTERS)/bin/pip-audit --strict --disable-pip --require-hashes --progress-spinner off -r $$lock || exit 1; \
	done

$(LINTERS)/.ready: deploy/locks/linters.lock
	test -x $(LINTERS)/bin/python || $(PYTHON) -m venv $(LINTERS)
	$(LINTERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed; name one with make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef UV
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endif
	touch $@

LOCKED := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header pyproject.toml

lock:  ## resolve pyproject.toml again, with hashes and without download addresses (needs uv)
	$(LOCKED) --extra docker --extra s3 --extra postgres --extra dev --extra tuning -o requirements.lock
	$(LOCKED) --extra docker --extra s3 --extra postgres -c requirements.lock -o deploy/locks/platform.lock
	$(LOCKED:pyproject.toml=deploy/locks/dagster.in) -c requirements.lock -o deploy/locks/dagster.lock
	$(LOCKED:pyproject.toml=deploy/locks/build.in) -c requirements.lock -o deploy/locks/build.lock
	$(LOCKED) --extra evidently -c requirements.lock -o requirements-evidently.lock \
	  $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock)

	$(LOCKED) --extra kubernetes -c requirements.lock -o requirements-kubernetes.lock \
	  $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements.lock)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --no-header --no-config deploy/locks/linters.in -o deploy/locks/linters.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	  --no-header --no-config deploy/locks/duckdb2.in -o deploy/locks/duckdb2.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
