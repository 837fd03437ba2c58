#!/bin/sh
# Makes the environment of the peers (RAIL, LSDB) that benchmarks take as --peers:  sh tests/benchmarks/peers.sh FOLDER
# The folder lies outside the repository (2 GB); nothing of zmill's own environment depends on it.
set -eu
[ $# = 1 ] || { echo "usage: sh tests/benchmarks/peers.sh FOLDER" >&2; exit 1; }
[ -x "$1/bin/python" ] || python3 -m venv "$1"
"$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$(dirname "$0")/peers.txt"
"$1/bin/python" -c 'import lsdb, rail.estimation.algos.cmnn, rail.estimation.algos.flexzboost, rail.estimation.algos.k_nearneigh, rail.estimation.algos.bpz_lite'
echo "$1: RAIL and LSDB are ready"
