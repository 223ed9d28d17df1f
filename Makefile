# `make demo` and `make test` need nothing but a Debian 12 with Python 3.11: they make .venv first.
VENV ?= .venv
export VENV
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: help setup demo test test-studies test-random test-slow lint bench clean distclean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## bring everything into .venv (about five minutes, once)
	@tools/setup.sh

demo: setup  ## train a surrogate of the heat equation from live simulations (a minute and a half)
	headrace run examples/heat.yaml $(ARGS)

test: lint  ## what must pass before every commit (at most ten minutes)
ifdef ARGS
	pytest -m "not slow and not studies" $(ARGS)
else
	pytest -n 2 --dist loadgroup -m "not slow and not studies and not alone"
	pytest -m "alone and not slow and not studies"
endif

test-studies: setup  ## whole studies: every example, kills, drills (half an hour)
	pytest -m "studies and not slow" $(ARGS)

test-random: setup  ## N random small studies (N=200; FROM=seed of the first)
	HEADRACE_RANDOM_STUDIES=$(or $(N),200) HEADRACE_RANDOM_FROM=$(or $(FROM),0) \
		pytest tests/integration/test_random_studies.py $(ARGS)

test-slow: setup  ## the tests that take longer
	pytest -m slow $(ARGS)

lint: setup  ## style, types and the import contract
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: setup  ## speed, a JSON line per figure; ONLY=name,name for some of them; ARGS="--json FILE", "--compare FILE"
	@python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(ARGS)

clean:  ## remove caches and build leftovers
	rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find solvers pipeline trainers deploy benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## remove .venv too
	rm -rf $(VENV)
