# The two commands of README stand on `setup`; every target may be run again at any time.
.PHONY: setup build demo test sanitize lint format

# Where torch comes from; empty: PyTorch's CPU index if it can be reached, else the configured one.
TORCH_INDEX ?=
export TORCH_INDEX

cpp = $$(git ls-files '*.cpp' '*.hpp' '*.h')

setup:
	@tools/setup.sh

build: setup

demo: setup
	@.venv/bin/python examples/demo.py

test: setup
	@tools/test.sh

# Host kernels with address and undefined-behaviour sanitizers, on every case of every family.
sanitize: setup
	@tools/sanitize.sh

# The C++ is compiled with -Wall -Wextra -Werror by `setup`.
lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/clang-format --dry-run --Werror $(cpp)
	@tools/mypy.sh

format: setup
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .
	@.venv/bin/clang-format -i $(cpp)
