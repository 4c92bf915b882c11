# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Sourced by the shell scripts in tools/: which Python to use.

# find_python MODULE...: print the first interpreter, 3.9 or newer, that has the
# modules. THAW_PYTHON comes first. The system's own comes last, because
# `python3` may be another one that lacks the system's packages.
find_python() {
    for python in "${THAW_PYTHON:-}" python3 /usr/bin/python3; do
        [ -n "$python" ] || continue
        if "$python" -c '
import importlib.util, sys
sys.exit(sys.version_info < (3, 9) or None in map(importlib.util.find_spec, sys.argv[1:]))
' "$@" >/dev/null 2>&1; then
            printf '%s\n' "$python"
            return 0
        fi
    done
    return 1
}
