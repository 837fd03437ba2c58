#!/bin/sh
# Makes an environment of peers that benchmarks take as --peers:  sh tests/benchmarks/peers.sh FOLDER [LIST]
# LIST: peers.txt (RAIL and LSDB, the default; 2 GB) or redrock.txt (0.5 GB), a folder each, because they need other versions of the same packages.
# The folder lies outside the repository; nothing of zmill's own environment depends on it.
set -eu
[ $# = 1 ] || [ $# = 2 ] || { echo "usage: sh tests/benchmarks/peers.sh FOLDER [LIST]" >&2; exit 1; }
list=${2-peers.txt}
[ -x "$1/bin/python" ] || python3 -m venv "$1"
"$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$(dirname "$0")/$list"
case $list in
redrock.txt) "$1/bin/python" -c 'import redrock.zfind, redrock.templates, redrock.targets' ;;
*) "$1/bin/python" -c 'import lsdb, rail.estimation.algos.cmnn, rail.estimation.algos.flexzboost, rail.estimation.algos.k_nearneigh, rail.estimation.algos.bpz_lite' ;;
esac
echo "$1: the peers of $list are ready"
