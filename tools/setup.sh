#!/bin/sh
# Makes .venv from the pins of requirements.lock and builds the C++. Doing it again does only what changed.
# TORCH_INDEX=URL is where torch comes from (default: PyTorch's CPU index where it can be reached).
set -eu
cd "$(dirname "$0")/.."

python=$(tools/preflight.sh)
stamp=.venv/.pins
# The stamp's lines: what is installed, and the index that was asked for when it was.
wanted="$("$python" -V) $(cksum <requirements.lock)"
asked=${TORCH_INDEX:-}
installed=$(sed -n 1p "$stamp" 2>/dev/null || true)
index=$(sed -n 2p "$stamp" 2>/dev/null || true)
another=
if [ -n "$asked" ] && [ -n "$installed" ] && [ "$asked" != "$index" ]; then another=--force-reinstall; fi

if [ "$installed" != "$wanted" ] || [ -n "$another" ]; then
  [ -x .venv/bin/python ] || "$python" -m venv .venv
  if [ "$(.venv/bin/python -V)" != "$("$python" -V)" ]; then
    rm -rf .venv
    "$python" -m venv .venv
  fi
  pip=".venv/bin/python -m pip --disable-pip-version-check"
  torch=$(grep '^torch==' requirements.lock)
  default=https://download.pytorch.org/whl/cpu
  if [ -z "${TORCH_INDEX:-}" ] && .venv/bin/python - "$default/torch/" <<'PROBE'
import sys
import urllib.request

try:
    urllib.request.urlopen(sys.argv[1], timeout=5).close()
except (OSError, ValueError):
    raise SystemExit(1)
PROBE
  then
    TORCH_INDEX=$default
  fi
  rest=$(mktemp)
  trap 'rm -f "$rest"' EXIT
  grep -v '^torch==' requirements.lock >"$rest"
  # The lock names every package, so nothing is resolved: --no-deps keeps it at exactly these.
  echo "setup: installing pinned packages"
  $pip install -q --no-deps -r "$rest"
  if [ -n "${TORCH_INDEX:-}" ]; then
    echo "setup: $torch from $TORCH_INDEX"
    $pip install -q --no-deps $another --index-url "$TORCH_INDEX" "$torch"
  else
    # Another build of torch may need libraries that the lock does not name.
    echo "setup: $torch from the configured index"
    $pip install -q -c requirements.lock "$torch"
  fi
  printf '%s\n%s\n' "$wanted" "$asked" >"$stamp"
fi

tools/build.sh
echo "setup: ready, .venv/bin/tilewright"
