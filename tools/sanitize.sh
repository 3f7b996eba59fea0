#!/bin/sh
# Builds the host kernels of every family with address and undefined-behaviour sanitizers and runs the checks of
# the spec on them, at every level of this processor; the first finding fails. Arguments: families, all without.
set -eu
cd "$(dirname "$0")/.."

python=.venv/bin/python
PATH=$PWD/.venv/bin:$PATH
export PATH
build=build/sanitized
families=$(for spec in kernels/*/host.cpp; do name=$(basename "$(dirname "$spec")"); printf '%s=%s/kernels/%s;' "$name" "$PWD" "$name"; done)
cmake -S kernels/_host -B "$build" -G Ninja -DTW_FAMILY_DIRS="${families%;}" -DTW_OUTPUT=libtilewright_sanitized \
  -DTW_SANITIZE=address,undefined >/dev/null
cmake --build "$build" -- --quiet

runtime="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
# Python and torch keep what they allocate, and torch is not built with sanitizers: leaks and its own errors are not ours.
export ASAN_OPTIONS=detect_leaks=0:verify_asan_link_order=0:detect_odr_violation=0:abort_on_error=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TILEWRIGHT_HOST_LIBRARY="$PWD/$build/libtilewright_sanitized.so"
for level in $("$python" -c 'from tilewright.machine import usable_levels; print(*usable_levels())'); do
  echo "sanitize: level $level"
  TILEWRIGHT_ISA=$level LD_PRELOAD="$runtime" .venv/bin/tilewright check "$@" --backend host
done
