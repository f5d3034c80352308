# Each verb makes .venv first if need be; PYTHON=python3.12 chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin
# One process per core, one thread each: threads that share cores wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadscope

.PHONY: demo test test-slow test-long test-lowest check format docs clean

demo: .venv/installed  ## pretrain a small Swin on images that the project draws itself
	$(BIN)/python pretrain.py

test: .venv/installed  ## the default tests: three minutes on two cores
	$(PYTEST)

test-slow: .venv/installed  ## what takes longer: whole jobs, sweeps, two processes
	$(PYTEST) -m slow

test-long: .venv/installed  ## what takes minutes each, before a release
	$(PYTEST) -m long

test-lowest: .venv-lowest/installed  ## the default tests on the oldest versions that pyproject allows
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n auto --maxprocesses 8 --dist loadscope

check: .venv/installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed  ## the documentation as a site, in site/
	$(BIN)/python tests/docs/api_page.py
	$(BIN)/zensical build --strict

clean:  ## everything that was made here, but for runs/ and data/
	rm -rf .venv .venv-lowest build site .cache *.egg-info .mypy_cache .pytest_cache .ruff_cache

.venv/installed: pyproject.toml constraints.txt
	@echo "installing into .venv: a few minutes the first time, mostly for torch"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

.venv-lowest/installed: pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install 'uv>=0.9'
	.venv-lowest/bin/uv pip install --python .venv-lowest --resolution lowest-direct -e '.[dev]'
	touch $@
