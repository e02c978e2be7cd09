#!/bin/sh
# Prints the Python to make .venv with: $1 or $PYTHON if given, else `python3`, else the newest
# python3.x on PATH. Each candidate is run, because a version manager's stub may exist and not work.
set -u

newest="python3.14 python3.13 python3.12 python3.11 python3.10"
wanted="${1:-${PYTHON:-}}"

usable() {
    "$1" -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' \
        >/dev/null 2>&1
}

for candidate in ${wanted:-python3 $newest}; do
    if usable "$candidate"; then
        command -v "$candidate"
        exit 0
    fi
done

{
    if [ -n "$wanted" ]; then
        echo "error: PYTHON=$wanted does not run, or is not Python 3.10 to 3.14."
        echo "  remedy: give another one, e.g. make test PYTHON=python3.11"
    else
        echo "error: no Python 3.10 to 3.14 was found (looked for: python3 $newest)."
        echo "  remedy: install one, or say where it is: make test PYTHON=/path/to/python3"
    fi
} >&2
exit 1
