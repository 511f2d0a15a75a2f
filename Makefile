# One command per job, the same at home and in CI. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONDONTWRITEBYTECODE := 1
# Ansible insists on UTF-8.
export LC_ALL := C.UTF-8

# More arguments for ansible-playbook, e.g. ARGS='-e registry_port=5005'
ARGS ?=
# Asks for the sudo password only where sudo would.
BECOME := $(shell [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass)
LOCAL := ansible-playbook -i inventories/local $(BECOME)

.PHONY: help up down test lint unit sanity integration molecule quickstart docs build clean bootstrap bootstrap-test lab bench bench-retention

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

# --- using it ----------------------------------------------------------------------------------------------
up: bootstrap ## A working registry on this machine
	$(LOCAL) site.yml $(ARGS)

down: bootstrap ## Take it away again; the images stay, unless PURGE=yes
	@case "$(PURGE)" in ''|no|yes) ;; *) echo "make: PURGE is '$(PURGE)': say yes to remove the images too, or leave it out" >&2; exit 1 ;; esac
	$(LOCAL) down.yml $(if $(filter yes,$(PURGE)),-e down_purge=true) $(ARGS)

bootstrap:
	@tools/bootstrap.sh run

# --- working on it -----------------------------------------------------------------------------------------
test: ## Everything, on a fresh machine too: Molecule beside lint, unit, sanity, integration, quickstart; a table of times at the end
	@tools/stages.sh bootstrap-test lab -- lint unit sanity integration quickstart -- molecule

bootstrap-test:
	@tools/bootstrap.sh test
	$(LOCAL) lab/setup.yml

lint: ## ansible-lint (production, strict), ruff, yamllint, shellcheck
	@tools/lint.sh

unit: ## Unit tests
	pytest -n auto $(PYTEST_ARGS)

sanity: ## ansible-test sanity
	@tools/sanity.sh

lab: ## Images of the test hosts
	lab/images.sh

integration: ## Tests with real registries in containers on loopback; REGISTRY_IMAGE, after lab
	pytest -n 4 tests/integration $(PYTEST_ARGS)

molecule: ## Molecule scenarios; one of them with S=name
	@tools/molecule.sh $(S)

quickstart: ## The README's two commands, in a copy of this checkout
	@tools/quickstart.sh

bench: lab ## Mirroring beside skopeo and crane (docs/bench.md), 20 minutes; ARGS='--rounds 1 --scale 0.05' for a try
	python3 bench/mirror.py $(ARGS)

bench-retention: lab ## Planning a clean-up, from disk and over the API (docs/bench.md), some minutes
	python3 bench/retention.py $(ARGS)

docs: ## Rendered reference and guides in docs/site/build
	@tools/docs.sh

build: ## The collection as a tarball
	ansible-galaxy collection build --force

clean: ## Remove what the targets above made inside this checkout
	rm -rf .venv .lab .cache .ansible docs/site/rst docs/site/build ./*.tar.gz
	find collections/ansible_collections -mindepth 1 -maxdepth 1 ! -name homelab -exec rm -rf {} +
