# Short names for what is done often. `make` alone lists them. They use the environment in .venv.
BIN ?= .venv/bin
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: docs screenshots help install test test-ci test-nightly lint format canary wheel docker clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: ## make .venv and install capkit with everything needed to develop it, in the tested versions
	python3 -m venv .venv
	$(BIN)/pip install -c requirements/constraints.txt -e '.[dev]'

test: ## tier 0: tests of at most a few CPU seconds each, about five minutes in all
	$(PYTEST)

test-ci: ## tier 1: also whole runs, several processes, and the core effect of each method; fails above its CPU budget
	$(PYTEST) --tier 1 --budget

test-nightly: ## tier 2: also every combination, packaging, the README as written, studies over three seeds
	$(PYTEST) --tier 2 --studies

lint: ## what CI checks before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

canary: ## the newest releases that the bounds allow, in .venv-canary: what is new, what fails to import, tier 0
	python3 -m venv --clear .venv-canary
	.venv-canary/bin/pip install --quiet -e '.[dev,tagger]'
	.venv-canary/bin/python requirements/canary.py
	$(MAKE) test BIN=.venv-canary/bin

docs: ## build the documentation as a site into build/site; any broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

screenshots: ## the pictures of pages in docs/, from the README's runs, which are trained into runs/screenshots
	$(BIN)/python -m benchmarks.screenshots

wheel: ## build the wheel into dist/
	$(BIN)/python -m build --wheel

docker: ## build the image capkit:latest
	docker build -f docker/Dockerfile -t capkit .

clean: ## remove caches and build outputs, never runs or data
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
