#!/bin/sh
# mypy --strict over the whole package. An editable install is invisible to mypy, so it sees the package
# through a view of symbolic links.
set -eu
cd "$(dirname "$0")/.."
view=build/types/tilewright
rm -rf build/types
mkdir -p "$view"
for item in src/tilewright/*; do ln -s "../../../$item" "$view/"; done
for room in kernels ascendc bindings perf autotune models quant engine ship; do
  [ -d "$room" ] && ln -s "../../../$room" "$view/"
done
MYPYPATH=build/types exec .venv/bin/mypy --strict -p tilewright "$@"
