# Longwire's targets. `make` alone lists them. ARGS="…" reaches the command behind a target:
#
#   make demo ARGS=--stay       make test ARGS="tests/wire -x"       make bench ARGS=--quick

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.longwire-setup
CHECKED := src tests bench examples
SUPPORTED := 3.11 3.12 3.13
FURTHER := 3.12 3.13
UV := uv==0.13.9
ARGS ?=

# $(call find_python,VERSIONS): a shell function `find_python` that sets $python to the first interpreter of these
# versions, in their order, that can make an environment; pyenv's shims answer to names that nothing stands behind.
find_python = find_python() { \
	for version in $(1); do \
		for python in $$(type -aP python$$version python3) "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python; do \
			if "$$python" -c 'import ensurepip, sqlite3, ssl, sys, venv; \
				sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' $$version 2>/dev/null; \
			then return; fi; \
		done; \
	done; \
	python=; return 1; \
}

# $(call install,PYTHON): the locked versions and nothing else, then the package itself.
install = $(1) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock \
	&& $(1) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

.PHONY: help
help: ## these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: $(STAMP) ## the environment in .venv, from requirements.lock; PYTHON=… names the interpreter

$(STAMP): requirements.lock pyproject.toml
	@if [ ! -x $(BIN)/python ] || ! $(BIN)/python -c ''; then \
		python="$(PYTHON)"; \
		$(call find_python,$(SUPPORTED)); \
		if [ -z "$$python" ] && ! find_python; then \
			echo "make setup needs Python 3.11, 3.12 or 3.13 with venv, ensurepip, ssl and sqlite3; name it: PYTHON=…"; \
			exit 1; \
		fi; \
		echo "making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV); \
	fi
	@echo "installing requirements.lock into $(VENV)"
	@$(call install,$(BIN)/python)
	@touch $@

.PHONY: demo
demo: setup ## a node, 2,000 devices, and a table that must add up; ARGS=--stay leaves it running
	@$(BIN)/longwire demo $(ARGS)

.PHONY: cluster
cluster: setup ## real engines, every role, nginx and the demo against them; ARGS=--stay leaves it running
	@$(BIN)/python -m longwire.testing.cluster $(ARGS)

.PHONY: lint
lint: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy --strict
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: setup ## puts the formatting right
	$(BIN)/ruff check --fix --select I $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

.PHONY: engines
engines: setup ## Redis, ZooKeeper, Kafka, MariaDB, PostgreSQL, nginx for the tests: installs what is missing
	@$(BIN)/python -m longwire.testing.engines

.PHONY: test
test: lint engines ## lint, then every test but the long ones, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: chaos
chaos: engines ## the long ones: kills, outages, soaks
	$(BIN)/python -m pytest -m chaos $(ARGS)

.PHONY: test-pythons
test-pythons: engines ## unit and contract tests on 3.12 and 3.13, where they are found
	@$(call find_python,$$wanted); \
	tested=; skipped=; failed=; \
	for wanted in $(FURTHER); do \
		if ! find_python; then skipped="$$skipped $$wanted"; continue; fi; \
		folder=.cache/pythons/$$wanted; \
		if ! cmp -s requirements.lock $$folder/requirements.lock || ! cmp -s pyproject.toml $$folder/pyproject.toml; then \
			echo "installing requirements.lock for Python $$wanted"; \
			"$$python" -m venv --clear $$folder; \
			$(call install,$$folder/bin/python) || { failed="$$failed $$wanted"; continue; }; \
			cp requirements.lock pyproject.toml $$folder; \
		fi; \
		echo "== $$($$folder/bin/python --version)"; \
		if $$folder/bin/python -m pytest -p no:cacheprovider --ignore=tests/e2e --ignore=tests/interop $(ARGS); \
		then tested="$$tested $$wanted"; else failed="$$failed $$wanted"; fi; \
	done; \
	echo "passed:$${tested:- none}; failed:$${failed:- none}; skipped, not found here:$${skipped:- none}"; \
	[ -z "$$failed" ]

.PHONY: screens
screens: engines ## pictures of the console's pages in .cache/screens; the README's two go to docs/images
	LONGWIRE_SCREENS=all $(BIN)/python -m pytest tests/console $(ARGS)
	LONGWIRE_SCREENS=all $(BIN)/python -m pytest tests/console/test_screens.py -m chaos
	@mkdir -p docs/images
	@for page in overview push; do cp .cache/screens/readme-$$page.png docs/images/$$page.png; done

.PHONY: interop
interop: setup ## the Autobahn suite against our WebSocket; needs a Python 2.7
	$(BIN)/python tests/interop/autobahn.py $(ARGS)

.PHONY: bench
bench: setup ## Longwire beside its peers, about an hour; ARGS=--quick shows that it works
	@missing=; \
	PATH="$$PATH:/usr/sbin" type -P mosquitto >/dev/null || missing="$$missing mosquitto"; \
	echo '#include <openssl/ssl.h>' | $(CC) -E - >/dev/null 2>&1 || missing="$$missing libssl-dev"; \
	if [ -n "$$missing" ]; then \
		command="apt-get install -y --no-install-recommends$$missing"; \
		if [ "$$(id -u)" = 0 ] && type -P apt-get >/dev/null; then \
			echo "$$command"; \
			{ apt-get update && $$command; } >/dev/null || echo "that failed; what needs it is left out"; \
		else \
			echo "missing:$$missing (Debian: $$command); what needs it is left out"; \
		fi; \
	fi
	$(BIN)/python -m bench.run $(ARGS)

.PHONY: lock
lock: .cache/lock/.$(UV) ## requirements.lock anew from pyproject.toml; ARGS=--upgrade takes newer versions
	@index=$${PIP_INDEX_URL:-$$(.cache/lock/bin/pip config get global.index-url 2>/dev/null || true)}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	if [ -n "$${PIP_CERT:-}" ]; then export SSL_CERT_FILE="$$PIP_CERT"; fi; \
	.cache/lock/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
		--no-annotate --extra dev --extra cluster --extra console --extra otel pyproject.toml --output-file requirements.lock $(ARGS) >/dev/null
	@if grep -nE '://|@ |^-|/' requirements.lock; then echo "requirements.lock names an address or a path"; exit 1; fi

.cache/lock/.$(UV):
	@$(call find_python,$(SUPPORTED)); find_python || { echo "no Python $(SUPPORTED) was found"; exit 1; }; \
	"$$python" -m venv --clear .cache/lock
	@.cache/lock/bin/pip install --quiet --disable-pip-version-check $(UV)
	@touch $@
