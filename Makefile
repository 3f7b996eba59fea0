# The two commands of README stand on `setup`; every target may be run again at any time.
.PHONY: setup build demo test lint

# Where torch comes from; empty: PyTorch's CPU index if it can be reached, else the configured one.
TORCH_INDEX ?=
export TORCH_INDEX

setup:
	@tools/setup.sh

build: setup

demo: setup
	@.venv/bin/python examples/demo.py

test: setup
	@.venv/bin/python -m pytest

lint: setup
	@.venv/bin/ruff check .
	@tools/mypy.sh
