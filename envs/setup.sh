#!/bin/sh
# Makes or updates .venv with the pinned versions of envs/constraints.txt. Run from anywhere; runs again in no time.
#   sh envs/setup.sh         what running zmill needs
#   sh envs/setup.sh test    and what its tests need
set -eu
cd "$(dirname "$0")/.."

fail() { echo "envs/setup.sh: $*" >&2; exit 1; }

python=
for name in python3 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$name
        break
    fi
done
[ -n "$python" ] || fail "found no Python >= 3.11; install it (Debian 12, Ubuntu 24.04 and later: apt-get install python3)"

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    # Debian and Ubuntu keep venv in a package of its own.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        command -v apt-get >/dev/null || fail "$python has no venv module; install it for $python and run again"
        as_root=
        [ "$(id -u)" = 0 ] || as_root=sudo
        echo "envs/setup.sh: installing python3-venv" >&2
        $as_root apt-get update -qq
        $as_root apt-get install -y -qq python3-venv >/dev/null
    fi
    rm -rf .venv
    "$python" -m venv .venv
fi

extra=${1:-}
wanted=$(cat pyproject.toml envs/constraints.txt | cksum)
mark=.venv/zmill-installed${extra:+-$extra}
if [ "$(cat "$mark" 2>/dev/null)" != "$wanted" ]; then
    echo "envs/setup.sh: installing into .venv (a few minutes the first time)" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt \
        --editable ".${extra:+[$extra]}"
    echo "$wanted" > "$mark"
fi
