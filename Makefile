# `make` alone prints what there is.

# A Python that was built for speed: pyenv's are not unless it is told, and take a tenth to a third longer.
FAST := import ensurepip, sys, sysconfig; sys.exit(sys.version_info < (3, 11) or not (sys.prefix == "/usr" or "--enable-optimizations" in sysconfig.get_config_var("CONFIG_ARGS")))
PYTHON ?= $(shell for one in python3 /usr/bin/python3; do $$one -c '$(FAST)' 2>/dev/null && echo $$one && exit; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := $(wildcard constraints.txt)
RUN := $(VENV)/.installed-run
TEST := $(VENV)/.installed-test
PACKAGES := redis-server openssh-server postgresql chromium shellcheck busybox dash iproute2 nftables libfaketime prometheus

.DEFAULT_GOAL := help
.PHONY: help demo test check bench faults clean packages

help:  ## print this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUN)  ## play the main job for real in about a minute: 12 hosts, 4 commits, 3 of them bad
	@$(BIN)/rollout demo

test: packages check  ## install what tests need (on Debian, as root), check, and run the suite
	@$(BIN)/python -m pytest -n 3

check: $(TEST)  ## lint, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@if command -v shellcheck >/dev/null; then \
		shellcheck .ci/run $$(find rollout deploy tests -name '*.sh'); \
	else echo 'shellcheck is not installed: shell programs were not checked'; fi

bench: $(TEST)  ## measure against plain ssh and other programs, about two hours (PARTS=rollout: one part)
	@$(BIN)/python -m tests.bench $(PARTS)

faults: packages  ## harm on purpose for an hour or two, then look whether what must hold still holds (PARTS=kill_sweep: one part)
	@$(BIN)/python -m tests.faults $(PARTS)

clean:  ## remove .venv and what the tools leave
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage*

# pip's exit status would be lost in the pipe; the file keeps it.
define install
	@echo 'Installing $(1) into $(VENV); the first time takes a minute or two'
	@{ $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-color \
		-e '$(1)' $(addprefix -c ,$(CONSTRAINTS)) 2>&1; echo $$? >$(VENV)/.pip; } \
		| tee $(VENV)/install.log \
		| awk '/^Collecting/ { sub(/[^A-Za-z0-9._-].*/, "", $$2); print "  " $$2 } \
			/^Installing collected/ { print "  installing them" } /^ERROR/ { print "  " $$0 } { fflush() }'
	@test "$$(cat $(VENV)/.pip)" = 0 || { echo 'That failed; all of it is in $(VENV)/install.log' >&2; exit 1; }
	@touch $@
endef

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rollout needs Python 3.11 or newer, and this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	@echo 'Making a virtual environment in $(VENV)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo 'Python could not make it; on Debian: apt-get install python3-venv' >&2; exit 1; }

$(RUN): pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(call install,.)

$(TEST): pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(call install,.[test])
	@touch $(RUN)

# Whatever cannot be installed here is skipped by its tests, or fails them with CI=true.
packages: $(TEST)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		missing=''; \
		for package in $(PACKAGES); do \
			dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
		done; \
		if [ -n "$$missing" ]; then \
			echo "Installing$$missing"; \
			export DEBIAN_FRONTEND=noninteractive; \
			{ apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing; } >/dev/null 2>$(VENV)/packages.log \
				|| { echo 'That failed:'; tail -5 $(VENV)/packages.log; } >&2; \
		fi; \
	fi
