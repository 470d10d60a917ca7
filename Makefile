# make demo    make .venv, install, lint fixtures and a real model
# make test    the tests, on two processes
# make check   ruff, mypy, and the rooms: what may import what

# the first Python that is new enough
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	command -v $$python >/dev/null 2>&1 && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && \
	echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# lint exits with 1 when it finds something, and fix when there is something to write, as they are meant to here
LINT = $(BIN)/dropout-lint check --exit-zero

.PHONY: install demo test check clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "dropout-lint needs Python 3.11 or newer on the PATH"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

demo: $(INSTALLED)
	$(LINT) 'fixtures.pointnet:build'
	$(LINT) 'fixtures.preresnet:build(position="P3", p=0.3)' --show-predictions
	$(LINT) 'torchvision.models:densenet121(drop_rate=0.2)'
	$(BIN)/dropout-lint fix 'fixtures.pointnet:build' || test $$? -eq 1

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .dropout_lint_cache dist
