#!/bin/sh
# All tests: first those that may run side by side, in as many processes as there are processors, four at most (or
# WORKERS=N; each may take 2 GB), then those that time something, alone. Options go to pytest: -k WORD, --durations=20.
set -u
cd "$(dirname "$0")/.."

workers=${WORKERS:-$(nproc | awk '{ print $1 < 4 ? $1 : 4 }')}

# The machine's ceilings, which are kept: nothing else runs now.
.venv/bin/tilewright doctor >/dev/null || true

failed=0
for part in "not alone:-n $workers --dist loadgroup" "alone:"; do
  # shellcheck disable=SC2086  # what stands behind the colon is words
  .venv/bin/pytest -m "${part%%:*}" ${part#*:} "$@"
  status=$?
  # 5: none was selected, by -k for instance.
  case $status in 0 | 5) ;; *) failed=$status ;; esac
done
exit "$failed"
