#!/bin/sh
# Prints the Python to use, or names every system package that is missing with the line that installs it (exit 1).
# PYTHON=... chooses one.
set -u

new_enough() {
  "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

python=
for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
  path=$(command -v "$name" 2>/dev/null) || continue
  if new_enough "$path"; then
    python=$path
    break
  fi
done

packages=
missing() { # what, package
  echo "missing: $1" >&2
  packages="$packages $2"
}

if [ -z "$python" ]; then
  # Where python3 is older, the distribution's newer one goes beside it.
  other=python3
  command -v python3 >/dev/null 2>&1 && other=python3.11
  missing "${PYTHON:-python3} 3.11 or later" "$other $other-venv $other-dev"
else
  version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
  if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    missing "venv and ensurepip of $python" "$version-venv"
  fi
  header=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
  if [ ! -f "$header" ]; then
    missing "Python.h of $python" "$version-dev"
  fi
fi
for tool in git make g++; do
  command -v "$tool" >/dev/null 2>&1 || missing "$tool" "$tool"
done

if [ -n "$packages" ]; then
  echo "on Debian or Ubuntu: sudo apt-get install$packages" >&2
  exit 1
fi
echo "$python"
