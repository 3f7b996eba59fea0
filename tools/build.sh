#!/bin/sh
# Builds the C++ and puts it into .venv. The package itself is installed once, as an editable one: Python files
# are read from the source tree, so only a change of pyproject.toml or of the rooms installs it again.
set -eu
cd "$(dirname "$0")/.."

python=.venv/bin/python
PATH=$PWD/.venv/bin:$PATH
export PATH
stamp=.venv/.installed
rooms=$(ls -d */__init__.py | tr '\n' ' ')
wanted="$PWD $rooms $(cksum <pyproject.toml)"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
build=$(ls -d build/"$tag"-*/CMakeCache.txt 2>/dev/null | head -n 1 || true)

if [ -z "$build" ] || [ ! -d "$site/tilewright" ] || [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "$wanted" ]; then
  echo "build: installing tilewright and compiling its C++ (minutes the first time)"
  "$python" -m pip --disable-pip-version-check install -q --no-build-isolation --no-deps -e .
  echo "$wanted" >"$stamp"
  exit 0
fi
build=$(dirname "$build")
log=$build/build.log
if ! cmake --build "$build" >"$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
cmake --install "$build" --prefix "$site" --component tilewright >>"$log"
