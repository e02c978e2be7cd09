# Every target sets up what it needs in .venv, once; the second time that costs half a second.
# PYTHON=python3.11 picks the interpreter when .venv is made; ARGS=... goes to the tool.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test lint format fuzz bench conformance docs clean

# Some machines forbid it: every process would compile all of our modules again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?=
ARGS ?=
RUN := .venv/bin/python

# $(call setup,OPTIONS): the environment, with these dependency groups.
define setup
@python=$$(sh tests/tools/find_python.sh "$(PYTHON)") && "$$python" tests/tools/setup_env.py $(1)
endef

help: ## Show this list
	@echo "make TARGET  (what each needs is set up in .venv, once)"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

demo: ## A real model through all four kinds of provider
	$(call setup,--group demo --lone-group model)
	$(RUN) docs/tutorials/demo.py $(ARGS)

# Two workers more than there are cores: many tests wait for processes that time out. Their threads
# sleep while they wait for each other, where they would take cores from the other workers.
test: export OMP_WAIT_POLICY ?= passive
test: ## Every test (ARGS="-k name" for some)
	$(call setup,--group test --lone-group model)
	$(RUN) -m pytest -n $$($(RUN) -c "import os; print((os.cpu_count() or 1) + 2)") --dist loadfile --no-loadscope-reorder $(ARGS)

lint: ## ruff, its formatter and mypy --strict; changes nothing
	$(call setup,--group lint)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: ## Let ruff rewrite what it can
	$(call setup,--group lint)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

fuzz: ## Ten minutes of fuzzing the parsers of weights (ARGS="TARGET --seconds 3600" for other ways)
	$(call setup,--group test --lone-group model)
	$(RUN) tests/fuzz/run.py $(or $(ARGS),--seconds 600)

bench: ## Every benchmark; the pages go to docs/benchmarks/
	$(call setup,--group bench --lone-group model)
	@set -e; for script in tests/bench/[!_]*.py; do \
		page=docs/benchmarks/$$(basename "$$script" .py).md; \
		echo "== $$script -> $$page"; \
		$(RUN) "$$script" --output "$$page" $(ARGS); \
	done

conformance: ## Every mutant, the whole kit on every provider of ours; reports go to docs/conformance/
	$(call setup,--group test --lone-group model)
	mkdir -p build
	$(RUN) tests/conformance/killed.py build/killed.json
	PYTHONPATH=tests/tools:core/tests $(RUN) tests/conformance/passed.py build/passed.json
	HARDPOINT_WHOLE_KIT=1 $(RUN) -m pytest -n auto --dist loadfile tests/conformance tests/end_to_end/test_scaffold_fresh.py tests/end_to_end/test_tutorial_backend.py
	mv build/killed.json build/passed.json tests/conformance/
	$(RUN) tests/tools/conformance_reports.py docs/conformance $(ARGS)

docs: ## Generate docs/reference/ from the code
	$(call setup,--group test)
	$(RUN) tests/tools/reference.py docs/reference

clean: ## Remove .venv, caches and build output
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo-out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
