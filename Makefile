# What people do with a checkout. Works with GNU make and BSD make.
#
#   make run                       build the example tree, with everything it needs set up
#   make run PACKAGES="devel/foo"  only these, and what they require
#   make run PKGSRCDIR=/usr/pkgsrc KIT=/path/to/bootstrap.tgz    a real tree
#   make demo-cluster              the same on three hosts with real sshd on this machine
#   make test                      all tests, with everything they need set up
#   make bench                     measure speed and memory
#   make venv                      only .venv

PYTHON = python3
VENV = .venv
STATE = var
PACKAGES =
PKGSRCDIR =
KIT =
HOSTS =
OPTIONS =
TESTS =

PROTO = proto/clusterdep/v1/clusterdep.proto proto/clusterbuild/v1/clusterbuild.proto

.PHONY: help run demo-cluster test lint bench venv clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,11p'

run: venv
	@sh tools/programs run
	@PACKAGES='$(PACKAGES)' PKGSRCDIR='$(PKGSRCDIR)' KIT='$(KIT)' HOSTS='$(HOSTS)' \
	    STATE='$(STATE)' exec sh tools/run $(VENV)/bin/clusterbuild $(OPTIONS)

demo-cluster: venv
	@sh tools/programs demo
	@PACKAGES='$(PACKAGES)' PKGSRCDIR='$(PKGSRCDIR)' KIT='$(KIT)' \
	    exec tools/demo-cluster up $(OPTIONS)

venv: $(VENV)/.run

test: $(VENV)/.test
	@sh tools/programs test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m pytest -n 4 --dist loadfile $(TESTS)

lint: $(VENV)/.test
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/mypy

bench: $(VENV)/.test
	@sh tools/programs demo
	@for script in bench/[a-z]*.py; do echo "== $$script"; $(VENV)/bin/python $$script || exit 1; done

$(VENV)/.run: pyproject.toml setup.py $(PROTO)
	@PYTHON='$(PYTHON)' sh tools/programs venv
	@sh tools/venv $(PYTHON) $(VENV) .
	@touch $@

$(VENV)/.test: pyproject.toml setup.py $(PROTO)
	@PYTHON='$(PYTHON)' sh tools/programs venv
	@sh tools/venv $(PYTHON) $(VENV) '.[dev]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist *.egg-info
