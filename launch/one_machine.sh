#!/usr/bin/env bash
# One run as several processes on this machine.
#
#   launch/one_machine.sh PROCESSES --config=configs/combined.py --workdir=DIR
#
# GPUs are shared out evenly among the processes. One process drives all GPUs of a machine by itself: use this script
# to try out a run of several machines, or to give each CPU socket a process of its own.
set -euo pipefail

processes=${1:?usage: launch/one_machine.sh PROCESSES --config=FILE --workdir=DIR [--config.key=value ...]}
shift
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

export SFACE_COORDINATOR="localhost:${SFACE_PORT:-$((20000 + RANDOM % 10000))}"
export SFACE_NUM_PROCESSES=$processes

gpus=()
if command -v nvidia-smi > /dev/null; then
  IFS=', ' read -ra gpus <<< "${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader | xargs)}"
  if ((${#gpus[@]} % processes)); then
    echo "error: ${#gpus[@]} GPUs do not divide among $processes processes" >&2
    exit 2
  fi
fi

pids=()
trap 'kill -KILL "${pids[@]}" 2> /dev/null || true' EXIT
trap 'kill -TERM "${pids[@]}" 2> /dev/null || true; wait; exit 143' TERM INT

for ((i = 0; i < processes; i++)); do
  share=("${gpus[@]:i * ${#gpus[@]} / processes:${#gpus[@]} / processes}")
  CUDA_VISIBLE_DEVICES=$(IFS=,; echo "${share[*]-}") SFACE_PROCESS_ID=$i "$python" -m sface_jax.main "$@" &
  pids+=($!)
done
# The first process that fails ends the others: they would wait for it for ever.
for ((i = 0; i < processes; i++)); do
  wait -n
done
