# `make run` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
# One worker more than cores where there are two: tests of real processes wait for each other much of the time.
WORKERS := -n 3 --dist loadfile --no-loadscope-reorder
# Begun first, one on each worker: each of their tests takes minutes.
LONGEST := $(addprefix tests/e2e/test_,deployment.py parity.py parity_private.py deployment_failures.py)
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test check proto bench bench-quality bench-serving clean

run: $(INSTALLED)
	$(BIN)/python -m simulations

test: $(INSTALLED)
	$(BIN)/python -m pytest $(WORKERS) $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/e2e/test_*.py)) \
		tests/integration tests/unit tests/property

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The gRPC messages and services, anew from their description; what comes out is committed.
proto: $(INSTALLED)
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. shared/proto/recommender.proto

bench: $(INSTALLED)
	$(BIN)/python benchmarks/prefix_cache.py
	$(BIN)/python benchmarks/full_ranking.py
	$(BIN)/python benchmarks/kill_ledger.py
	$(BIN)/python benchmarks/secure_sum.py
	$(BIN)/python benchmarks/private_step.py
	$(BIN)/python benchmarks/app_start.py

bench-serving: $(INSTALLED)
	$(BIN)/python benchmarks/serving.py

bench-quality: $(INSTALLED)
	$(BIN)/python benchmarks/quality.py

# torch comes first and pinned: an open range would take a build for GPUs, gigabytes of it. Modules are compiled on all
# cores, where pip would take one; a few are of later Pythons and stay as they are.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true
	touch $@

clean:
	rm -rf .venv var/cache build *.egg-info  # var/client holds ledgers, keys and models
