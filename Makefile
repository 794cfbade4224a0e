# Short names for what is done often. `make` alone lists them. They use the environment in .venv.
BIN ?= .venv/bin

.PHONY: help install test test-fast lint format canary wheel docker clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: ## make .venv and install capkit with everything needed to develop it, in the tested versions
	python3 -m venv .venv
	$(BIN)/pip install -c requirements/constraints.txt -e '.[dev]'

test: ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: ## the tests that are not marked slow or effect
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow and not effect'

lint: ## what CI checks before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

canary: ## the newest releases that the bounds allow, in .venv-canary: what is new, what fails to import, test-fast
	python3 -m venv --clear .venv-canary
	.venv-canary/bin/pip install --quiet -e '.[dev]'
	.venv-canary/bin/python requirements/canary.py
	.venv-canary/bin/python -m pytest -n 2 --dist loadfile -m 'not slow and not effect'

wheel: ## build the wheel into dist/
	$(BIN)/python -m build --wheel

docker: ## build the image capkit:latest
	docker build -f docker/Dockerfile -t capkit .

clean: ## remove caches and build outputs, never runs or data
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
