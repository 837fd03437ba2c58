#!/bin/sh
# What zmill does on a GPU, in at most six minutes:  sh tests/benchmarks/gpu.sh [--dry-run] [--spectra] [FOLDER]
# The tests that are skipped where there is no GPU, then training, prediction and the template fit, each with a time limit of its
# own. All of it goes into results/benchmarks/gpu.json: {"device": ..., "tests": ..., "train": {figures}, ...}, with the figures of
# tests/benchmarks/{train,predict,template}.py; what they print, into gpu.txt beside it. FOLDER has lsst_dc2/ (default:
# $ZMILL_TEST_DATA). With --spectra: the models over spectra instead, in at most five minutes, into gpu_spectra.json (spectra.py).
# Without a GPU, and with --dry-run, the same programs run on few rows, so that the script is known to work.
set -u
cd "$(dirname "$0")/../.."
python=.venv/bin/python out=results/benchmarks
export PYTHONPATH="$PWD/workflow_scripts${PYTHONPATH:+:$PYTHONPATH}" OMP_WAIT_POLICY=PASSIVE
mkdir -p "$out"
device=$($python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "none")') || exit 1
dry=0 kind=gpu
[ "${1-}" = --dry-run ] && { dry=1 && shift; }
[ "${1-}" = --spectra ] && { kind=gpu_spectra && shift; }
[ "$device" = none ] && dry=1
data=${1-${ZMILL_TEST_DATA-../shared/data}}
if [ $dry = 1 ]; then
    tests="-k triangle" on=cpu models="trainz knn" rows=600 predicted=20000 fitted=2000 spectra=2000 slower=6
else
    tests="" on=cuda models="ensemble resmlp fcnn" rows=7724 predicted=10000000 fitted=400000 spectra=200000 slower=1
fi
failed=""
: >"$out/$kind.txt"
# Figures of an earlier run are no figures of this one.
if [ $kind = gpu ]; then rm -f "$out/train.json" "$out/predict.json" "$out/template.json"; else rm -f "$out/spectra.json"; fi

part() { # name, most seconds, command
    name=$1 seconds=$(($2 * slower)) # a busy processor may take its time
    shift 2
    echo "== $name, at most $seconds s: $*" >>"$out/$kind.txt"
    if timeout "$seconds" "$@" >>"$out/$kind.txt" 2>&1; then
        echo "$name: done"
    else
        echo "$name: failed, or took more than $seconds s; $out/$kind.txt says more"
        failed="$failed $name"
    fi
}

# The words of $tests and $models are arguments of their own.
[ $kind = gpu_spectra ] && [ $dry = 0 ] && tests="-k spectrum"
part tests 110 $python -m pytest -q -n 0 -p no:cacheprovider tests/models/test_on_a_gpu.py $tests
grep -E '(passed|failed|error).* in ' "$out/$kind.txt" | tail -n 1 >"$out/$kind.tests"
if [ $kind = gpu ]; then
    part train 110 $python tests/benchmarks/train.py --models $models --rows $rows --devices $on --data "$data"
    part predict 90 $python tests/benchmarks/predict.py --rows $predicted --repeats 1
    part template 45 $python tests/benchmarks/template.py --rows $fitted --repeats 2
else
    part spectra 190 $python tests/benchmarks/spectra.py --parts train predict --device $on --rows $spectra --train $((spectra / 4))
fi

$python - "$out" "$kind" "$device" "$dry" $failed <<'PYTHON'
import json
import sys
from pathlib import Path

out, kind, device, dry, *failed = sys.argv[1:]
programs = ("train", "predict", "template") if kind == "gpu" else ("spectra",)
files = {name: Path(out, f"{name}.json") for name in programs}
found = {name: json.loads(file.read_text()) if file.is_file() else None for name, file in files.items()}
about = {"device": device, "dry_run": dry == "1", "failed": failed, "tests": Path(out, f"{kind}.tests").read_text().strip()}
Path(out, f"{kind}.json").write_text(json.dumps(about | found, indent=2) + "\n")
Path(out, f"{kind}.tests").unlink()
print(Path(out, f"{kind}.json"))
PYTHON
[ -z "$failed" ]
