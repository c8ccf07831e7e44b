#!/usr/bin/env bash
# One run as several processes on this machine:
#
#   launch/one_machine.sh PROCESSES --config=configs/combined.py --workdir=DIR
#
# The GPUs, or those of CUDA_VISIBLE_DEVICES, are shared out evenly. One process drives all GPUs of a machine by itself:
# use this script to try out a run of several machines, or to give each CPU socket a process of its own.
#
# SIGTERM and ^C are passed on: the run saves and ends with 143. When a process fails the others end too, within
# SFACE_GRACE seconds (30), and the status is that of the first that failed: 2 for a mistake, 75 where something was
# lost, 128 + n where signal n ended it. SFACE_PORT sets the port that they meet at, PYTHON the interpreter.
set -euo pipefail

usage="usage: launch/one_machine.sh PROCESSES --config=FILE --workdir=DIR [--config.key=value ...]"
processes=${1-}
[[ $processes =~ ^[1-9][0-9]*$ ]] || { echo "$usage" >&2; exit 2; }
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

taken() { (: < "/dev/tcp/localhost/$1") 2> /dev/null; }
port=${SFACE_PORT:-}
until [ -n "$port" ]; do
  port=$((20000 + RANDOM % 10000))
  ! taken "$port" || port=
done
export SFACE_COORDINATOR="localhost:$port" SFACE_NUM_PROCESSES="$processes"

visible=${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null | paste -sd, || true)}
gpus=()
[ "$visible" = -1 ] || IFS=', ' read -ra gpus <<< "$visible"
if ((${#gpus[@]} % processes)); then
  echo "error: ${#gpus[@]} GPUs do not divide among $processes processes: choose some with CUDA_VISIBLE_DEVICES" >&2
  exit 2
fi
each=$((${#gpus[@]} / processes))

pids=()
trap 'kill -KILL "${pids[@]}" 2> /dev/null || true' EXIT
signalled=
trap 'signalled=1; kill -TERM "${pids[@]}" 2> /dev/null || true' TERM INT

for ((i = 0; i < processes; i++)); do
  share=$(IFS=,; echo "${gpus[*]:i * each:each}")
  ((each == 0)) || export CUDA_VISIBLE_DEVICES="$share"
  SFACE_PROCESS_ID=$i "$python" -m sface_jax.main "$@" &
  pids+=($!)
done

# Until all have ended (then `wait -n` gives 127), or one has failed. A signal ends `wait -n` too, with its own number.
status=0
while ((status == 0)); do
  signalled=
  wait -n || status=$?
  [ -z "$signalled" ] || status=0
done
((status != 127)) || status=0

running() { kill -0 "${pids[@]}" 2> /dev/null; }
for ((i = 0; i < 5 * ${SFACE_GRACE:-30}; i++)); do
  running || break
  sleep 0.2
done
kill -KILL "${pids[@]}" 2> /dev/null || true
# All statuses once more, for one that ended just when a signal came.
for pid in "${pids[@]}"; do
  own=0
  wait "$pid" || own=$?
  ((status)) || status=$own
done
exit "$status"
