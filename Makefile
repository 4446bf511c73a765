# Every target sets itself up in .venv first: a Python of at least 3.11 and make are all it needs.

# Threads that spin while they wait make a small machine up to ten times slower.
export OMP_WAIT_POLICY ?= PASSIVE
# Compiled files are worth keeping: without them every `import torch` takes seconds more. Empty counts as not set.
export PYTHONDONTWRITEBYTECODE =

# Where a Python is looked for; the constraints were made with the first one.
PYTHONS ?= python3.11 python3.12 python3.13 python3 python
# More for pytest: make test PYTEST="-k windows"
PYTEST ?=
WORKERS ?= 2

BIN := .venv/bin

.PHONY: help demo test check lint format docs bench clean

help: ## say what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'

demo: .venv/.train ## train a small model on handwritten digits, and write a report of it
	$(BIN)/mvitv2 demo --output runs/demo

test: .venv/.dev ## run every test that a machine without a GPU can run
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)

check: .venv/.dev ## run the quick tests: units and architecture
	$(BIN)/python -m pytest -m "not slow" tests/unit tests/arch $(PYTEST)

lint: .venv/.dev ## check format, style, types and spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	git ls-files -z | xargs -0 $(BIN)/codespell

format: .venv/.dev ## put the code into its format, and repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.dev ## build the documentation into site/
	$(BIN)/zensical build --clean --strict

bench: .venv/.dev ## measure speed and memory on this machine, after the parity tests
	$(BIN)/python -m benchmarks

clean: ## remove everything that make and the commands wrote here
	rm -rf .venv site runs dist build .pytest_cache .ruff_cache .hypothesis .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv takes a fifth of pip's time. It does not read pip's settings, so where it gets no answer pip is asked.
define install
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(1)]' \
	|| $(BIN)/python -m pip install -c constraints.txt -e '.[$(1)]'
	@touch $@
endef

.venv/.train: .venv/.python pyproject.toml constraints.txt
	$(call install,train)

.venv/.dev: .venv/.python pyproject.toml constraints.txt
	$(call install,dev)

.venv/.python:
	@for python in $(PYTHONS); do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "making .venv with $$($$python --version)"; \
	    rm -rf .venv && $$python -m venv .venv && break; \
	  fi; \
	done; \
	if [ ! -x $(BIN)/python ]; then \
	  echo "No Python of at least 3.11 that can make virtual environments among: $(PYTHONS)." >&2; \
	  echo "Install one (on Debian: python3 and python3-venv), or name it: make PYTHONS=/path/to/python3 ..." >&2; \
	  exit 1; \
	fi
	-@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@touch $@
