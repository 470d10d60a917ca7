#!/usr/bin/env bash
# Every figure of this folder that needs a GPU, in ten minutes at the most; each script saves its own page in results/.
#
#     bash benchmarks/on_a_gpu.sh                       DEVICE=cuda, BATCH=128
#     DEVICE=cpu BATCH=2 ROUNDS=2 bash benchmarks/on_a_gpu.sh     that it runs (and writes pages that are worth nothing)
#
# Not measured so far: no GPU was at hand. A script that fails or takes too long does not end the others; the exit status
# says whether one did.
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
device=${DEVICE:-cuda} batch=${BATCH:-128} rounds=${ROUNDS:-7} failed=0

"$python" -c "import sys, torch; sys.exit('$device' == 'cuda' and not torch.cuda.is_available())" || {
  echo "torch sees no GPU here: nothing was measured" >&2
  exit 2
}
measured() { # seconds, script, arguments
  echo "== $2"
  timeout "$1" "$python" "${@:2}" || { echo "$2: failed, or took more than $1 s" >&2; failed=1; }
}
measured 90 benchmarks/uout.py --device "$device" --rounds "$rounds"
measured 90 benchmarks/recalibrate.py --device "$device" --batch "$batch" --size "${SIZE:-224}" --rounds "$rounds"
measured 150 benchmarks/monte_carlo.py --device "$device" --batch "$batch" --rounds "$rounds"
measured 240 benchmarks/measure.py --device "$device" --batch "$batch" --repeats "$(( rounds < 3 ? rounds : 3 ))"
exit "$failed"
