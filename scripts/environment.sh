# Sourced by demo, test and bench: makes .venv at the root from requirements.lock, once, and again when the lock
# or the project's own declaration changes. Needs a Python of 3.11 or newer and nothing else.

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root" || exit 1

find_python() {
    for name in ${TILL_PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "Tillwright needs Python 3.11 or newer, and none was found. Install it, or name it in TILL_PYTHON." >&2
    return 1
}

make_environment() {
    stamp=.venv/.made-from
    wanted=$(cat requirements.lock pyproject.toml | cksum)
    if [ -x .venv/bin/till ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    python=$(find_python) || exit 1
    echo "Making .venv (once; from requirements.lock) ..." >&2
    # A fresh folder: what an older lock installed must not linger. Output is kept for the day that it fails.
    log=$(mktemp)
    if ! {
        "$python" -m venv --clear .venv &&
            .venv/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock &&
            .venv/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
    } >"$log" 2>&1; then
        cat "$log" >&2
        echo "The environment could not be made; the installer's words are above." >&2
        exit 1
    fi
    rm -f "$log"
    echo "$wanted" >"$stamp"
}

make_environment
python=$root/.venv/bin/python
