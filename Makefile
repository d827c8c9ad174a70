# Needs make and Python 3.11 or later; everything else is installed under build/.
# PYTHON=... chooses the interpreter, ARGS="..." goes to pytest and to the benchmarks.

.DEFAULT_GOAL := help
.SECONDARY:
.PHONY: help demo demo-rollback demo-webhook test test-services test-all typing lint bench wheel requirements clean

# Without compiled modules, each of the processes that tests start takes a second longer.
unexport PYTHONDONTWRITEBYTECODE

ENV := build/env
WHEEL := build/wheel/.built
# The folders are in the list too: their time stamps tell of files that are gone.
SOURCES := $(shell find src -name __pycache__ -prune -o -print)
GROUPS := bench build core demo full lint nox pins test
# The engines that need a server are in the environment of all tests.
with_engines := $(if $(filter-out sqlite,$(ENGINE)),full,demo)
# Most tests wait for a server half of the time, so there is work for more than the two
# cores of a small machine. By file: servers are started once per file.
AT_ONCE := --numprocesses 3 --dist loadfile --no-loadscope-reorder

# What `make test` leaves to the others: further ways to test what one way has tested,
# what only a real browser shows, and the engines that need a server.
SHORT := -m "not wide" --hypothesis-profile short --ignore tests/browser \
	--ignore tests/queues/brokers --ignore tests/queues/postgresql \
	--ignore tests/queues/kill/test_brokers.py

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

# Its variables (FRAMEWORK=flask, KEEP=1, ORDERS=20) reach it through the environment.
demo: $(ENV)/demo/.postlude ## order in a shop with and without defer (FRAMEWORK=fastapi|flask|django, KEEP=1, ORDERS=n)
	@$(call until_ctrl_c,PYTHONPATH=examples $(ENV)/demo/bin/python -m shop)

demo-rollback: $(ENV)/demo/.postlude ## roll an order back under a 200, without and with gates (FRAMEWORK=..., DATABASES=sqlite)
	@$(call until_ctrl_c,PYTHONPATH=examples $(ENV)/demo/bin/python -m shop.rollback)

demo-webhook: $(ENV)/$(with_engines)/.postlude ## lose webhooks without .retry(3), and none with it (ENGINE=sqlite|celery|procrastinate|..., ORDERS=n)
	@$(call until_ctrl_c,PYTHONPATH=examples $(ENV)/$(with_engines)/bin/python -m shop.webhook)

test: $(ENV)/test/.postlude ## run the tests that need nothing but Python (ARGS="-k name" goes to pytest)
	@REQUIRE_ALL_SERVERS=1 TEST_TREES=$${TEST_TREES:-40} \
		$(ENV)/test/bin/python -m pytest $(AT_ONCE) $(SHORT) $(ARGS)

test-services: $(ENV)/full/.postlude ## run all tests, with databases, brokers and a browser, and report what no test reached
	@rm -rf build/coverage && mkdir -p build/coverage
	@REQUIRE_ALL_SERVERS=1 $(ENV)/full/bin/python tests/services.py \
		$(ENV)/full/bin/python -m coverage run -m pytest $(AT_ONCE) $(ARGS); status=$$?; \
	[ $$status -le 1 ] || exit $$status; \
	$(ENV)/full/bin/python -m coverage combine --quiet && \
	$(ENV)/full/bin/python -m coverage report || exit 1; \
	exit $$status

test-all: $(ENV)/nox/.installed $(ENV)/full/.installed $(WHEEL) ## run all tests on Python 3.11, 3.12 and 3.13, with the oldest and the latest frameworks
	@REQUIRE_ALL_SERVERS=1 $(ENV)/full/bin/python tests/services.py $(ENV)/nox/bin/python -m nox -- $(AT_ONCE) $(ARGS)

typing: $(ENV)/lint/.installed ## check the types of src and tests/typing with mypy and pyright
	@$(ENV)/lint/bin/python -m mypy
	@$(ENV)/lint/bin/python -m pyright --pythonpath $(ENV)/lint/bin/python

lint: $(ENV)/lint/.installed ## check style, format and the directions of imports
	@$(ENV)/lint/bin/python -m ruff check
	@$(ENV)/lint/bin/python -m ruff format --check
	@PYTHONPATH=src $(ENV)/lint/bin/python $(ENV)/lint/bin/lint-imports --cache-dir build/import-linter

bench: $(ENV)/bench/.postlude ## measure what defer costs, side by side with the same app without it
	@$(call until_ctrl_c,$(ENV)/bench/bin/python -m benchmarks $(ARGS))

wheel: $(WHEEL) ## build the wheel into build/wheel
	@ls build/wheel/*.whl

requirements: $(ENV)/pins/.installed ## compile the pins in requirements/ anew, with the newest versions
	@for group in $(GROUPS); do $(call pin,$$group,$$group) || exit 1; done
	@$(call pin,oldest,oldest,--constraints requirements/oldest.in)

clean: ## remove everything that was built
	rm -rf build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Whoever presses Ctrl-C does not want to read that make failed.
until_ctrl_c = trap : INT; $(1); status=$$?; [ $$status -eq 130 ] || exit $$status

# $(1): the group of pyproject.toml, $(2): the file to write, $(3): further options.
# A host in the pins would be the one of whoever compiled them last: none is written.
pin = echo "Pinning requirements/$(2).txt" && \
	$(ENV)/pins/bin/python -m uv pip compile --quiet --system-certs --upgrade \
	--universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make requirements" \
	--group $(1) $(3) --output-file requirements/$(2).txt

$(WHEEL): $(ENV)/build/.installed $(SOURCES) pyproject.toml $(wildcard LICENSE README.md)
	@rm -rf build/wheel
	@said=$$($(ENV)/build/bin/python -m hatchling build --target wheel \
		--directory build/wheel 2>&1) || { echo "$$said" >&2; exit 1; }
	@touch $@

$(ENV)/%/.installed: requirements/%.txt | $(ENV)/build/.installed
	@$(find_python); \
	echo "Preparing the $* environment in $(ENV)/$* (only once, up to a minute)"; \
	rm -rf $(ENV)/$* && "$$python" -m venv --without-pip $(ENV)/$* && \
	$(call install,$*,--require-hashes -r requirements/$*.txt)
	@touch $@

$(ENV)/%/.postlude: $(ENV)/%/.installed $(WHEEL)
	@$(call install,$*,--no-index --no-deps --force-reinstall build/wheel/*.whl)
	@touch $@

# The one environment with a pip of its own, which installs the others: a new pip finds
# a hundred pins in a third of the time of the one that Python 3.11 brings along.
$(ENV)/build/.installed: requirements/build.txt
	@$(find_python); \
	echo "Preparing the build environment in $(ENV)/build"; \
	rm -rf $(ENV)/build && "$$python" -m venv $(ENV)/build && \
	$(call install,build,--require-hashes -r requirements/build.txt)
	@touch $@

# $(1): the environment, $(2): what to install. Compiled on all cores, which pip does not.
install = $(ENV)/build/bin/python -m pip --python $(ENV)/$(1)/bin/python install \
	--quiet --quiet --disable-pip-version-check --no-input --no-compile $(2) && \
	{ $(ENV)/$(1)/bin/python -m compileall -qq -j 0 $(ENV)/$(1)/lib || true; }

# Sets $python. A name on PATH need not work (pyenv leaves shims), so each is tried.
CANDIDATES = $(or $(PYTHON),python3.11 python3 python3.12 python3.13)
find_python = python=; \
	for candidate in $(CANDIDATES); do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
		then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "No Python 3.11 or later was found (tried: $(CANDIDATES))." >&2; \
		echo "Usually it is not installed, or not on PATH." >&2; \
		echo "Install it, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
		exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$$python cannot build environments: it lacks the modules venv and ensurepip." >&2; \
		echo "Debian and Ubuntu package them apart from Python." >&2; \
		echo "Install them: apt install python3-venv (or python3.11-venv)" >&2; \
		exit 1; \
	fi
