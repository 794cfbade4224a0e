# Short names for what is done often. `make` alone lists them. They use the environment in .venv.
BIN ?= .venv/bin

.PHONY: help install test test-fast lint format wheel docker clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: ## make .venv and install capkit with everything needed to develop it
	python3 -m venv .venv
	$(BIN)/pip install -e '.[dev]'

test: ## every test
	$(BIN)/pytest -n 2 --dist loadfile

test-fast: ## tests that take seconds
	$(BIN)/pytest -n 2 -m 'not slow and not effect'

lint: ## what CI checks before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: ## build the wheel into dist/
	$(BIN)/python -m build --wheel

docker: ## build the image capkit:latest
	docker build -f docker/Dockerfile -t capkit .

clean: ## remove caches and build outputs, never runs or data
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
