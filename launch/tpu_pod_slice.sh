#!/usr/bin/env bash
# One run on all hosts of a TPU pod slice, from a machine with gcloud:
#
#   launch/tpu_pod_slice.sh NAME ZONE --config=configs/combined.py --workdir=DIR
#
# Copies the committed state of the repository to every host, installs it there the first time, and runs it on all
# hosts at once. The hosts need Python 3.11 or newer (REMOTE_PYTHON names it), and a file system that all of them see
# for DIR and the data, e.g. Filestore. The same command goes on from the last checkpoint.
set -euo pipefail

usage="usage: launch/tpu_pod_slice.sh NAME ZONE --config=FILE --workdir=DIR [--config.key=value ...]"
name=${1:?$usage}
zone=${2:?$usage}
shift 2
cd "$(dirname "$0")/.."
python=${REMOTE_PYTHON:-python3.11}

archive=$(mktemp -d)/sface_jax.tar.gz
trap 'rm -rf "$(dirname "$archive")"' EXIT
git archive --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name:sface_jax.tar.gz" --zone="$zone" --worker=all

gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
set -e
mkdir -p sface_jax
tar -xzf sface_jax.tar.gz -C sface_jax
cd sface_jax
if ! cmp -s requirements.lock .venv/installed.lock; then
  $python -m venv .venv
  .venv/bin/pip install -q -c requirements.lock -e '.[tpu]'
  cp requirements.lock .venv/installed.lock
fi
SFACE_DISTRIBUTED=auto .venv/bin/python -m sface_jax.main $(printf '%q ' "$@")"
