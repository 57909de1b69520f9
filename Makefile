# Every target installs what it needs and writes only inside this folder (.venv/, out/).
# CI runs these same targets. Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
PYTEST_FLAGS ?= -n 2

# Caches belong to the checkout too, not to the home folder.
export PIP_CACHE_DIR = $(CURDIR)/.venv/cache/pip
export XDG_CACHE_HOME = $(CURDIR)/.venv/cache
export MPLCONFIGDIR = $(CURDIR)/.venv/cache/matplotlib
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PIP = .venv/bin/python -m pip
PYTEST = -m pytest $(PYTEST_FLAGS) --basetemp=$(CURDIR)/out/pytest -o cache_dir=$(CURDIR)/out/pytest_cache

# Two workers with one thread each: torch's thread pools fight over busy cores (2 to 13 times slower).
test test-slow test-browser test-wheel test-newest: export OMP_NUM_THREADS = 1

.PHONY: demo test test-slow test-browser test-wheel test-newest lint clean

demo: .venv/demo.stamp ## play the bundled Pong world: out/demo.mp4 and out/demo.png
	.venv/bin/genie-gym demo

test: .venv/dev.stamp ## the default tests, about two minutes
	mkdir -p out
	.venv/bin/python $(PYTEST)

test-slow: .venv/dev.stamp ## the long proofs
	mkdir -p out
	.venv/bin/python $(PYTEST) -m slow

test-browser: .venv/dev.stamp ## the page of `genie-gym serve` in Chromium; pictures in out/browser
	$(PIP) install -c constraints.txt -e ".[browser]"
	.venv/bin/python $(PYTEST) -n 0 -m browser

lint: .venv/dev.stamp ## style, types, import contracts, spelling
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/codespell

# From another folder and without `python -m`, so that the checkout is not on the import path.
test-wheel: ## the default tests on the installed wheel
	rm -rf out/wheel && mkdir -p out/wheel/elsewhere
	$(PYTHON) -m venv out/wheel/venv
	out/wheel/venv/bin/python -m pip wheel --no-deps --wheel-dir out/wheel .
	out/wheel/venv/bin/python -m pip install -c constraints.txt torch
	wheel=$$(echo out/wheel/*.whl) && \
		out/wheel/venv/bin/python -m pip install -c constraints.txt "$$wheel[dev]"
	cd out/wheel/elsewhere && ../venv/bin/python -I -c \
		"import genie_gym; assert 'site-packages' in genie_gym.__file__, genie_gym.__file__"
	cd out/wheel/elsewhere && ../venv/bin/pytest $(PYTEST_FLAGS) \
		-c $(CURDIR)/pyproject.toml --basetemp=$(CURDIR)/out/pytest \
		-o cache_dir=$(CURDIR)/out/pytest_cache $(CURDIR)/tests

test-newest: ## the default tests on the newest dependencies, constraints.txt ignored
	rm -rf out/newest && mkdir -p out/newest
	$(PYTHON) -m venv out/newest
	out/newest/bin/python -m pip install --upgrade -e ".[dev]"
	out/newest/bin/python $(PYTEST)

clean: ## what the other targets made
	rm -rf .venv out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: what broke off is done again, what is done takes no time.
# torch comes first, so that one resolver run settles its large wheels before anything asks for them.
.venv/demo.stamp: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e .
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/pip
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e ".[dev]"
	touch .venv/demo.stamp $@

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "genie-gym needs Python 3.11 or newer, got $$($(PYTHON) --version 2>&1)." \
			"Name another one: make PYTHON=python3.13 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
