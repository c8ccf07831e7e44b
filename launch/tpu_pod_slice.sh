#!/usr/bin/env bash
# One run on all hosts of a TPU pod slice, from a machine with gcloud:
#
#   launch/tpu_pod_slice.sh NAME ZONE --config=configs/combined.py --workdir=DIR
#   launch/tpu_pod_slice.sh NAME ZONE stop
#
# Copies the committed state of the repository to every host, installs it there the first time and when what it needs
# has changed, and runs it on all hosts at once. The hosts need Python 3.11 or newer (REMOTE_PYTHON names it), and a
# place that all of them see for DIR and the data: gs://..., or Filestore. CLOUDSDK_CORE_PROJECT names another project.
#
# ^C and SIGTERM are passed on, as by `stop`: the run saves and ends with 143. Where the connection breaks the run goes
# on; `stop` ends it. The status is that of the first host that failed, see README.md; after 75 and 143, also when a
# spot slice was preempted and created anew, the same command goes on from the last checkpoint.
set -euo pipefail

usage="usage: launch/tpu_pod_slice.sh NAME ZONE stop|--config=FILE --workdir=DIR [--config.key=value ...]"
(($# >= 3)) || { echo "$usage" >&2; exit 2; }
name=$1 zone=$2
shift 2
cd "$(dirname "$0")/.."
python=${REMOTE_PYTHON:-python3.11}

everywhere() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }
# Of a run that has ended the number may be another process's by now.
# shellcheck disable=SC2016 # for the hosts to expand
running='pid=$(cat sface_jax/run.pid 2> /dev/null) && grep -q sface_jax.main "/proc/$pid/cmdline" 2> /dev/null'
stop() { everywhere "if $running; then kill -TERM \"\$pid\"; while $running; do sleep 1; done; fi"; }

if [ "$1" = stop ]; then
  stop
  exit
fi

[ -z "$(git status --porcelain --untracked-files=no)" ] || echo "warning: what is not committed stays here" >&2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git archive --output="$scratch/sface_jax.tar.gz" HEAD
gcloud compute tpus tpu-vm scp "$scratch/sface_jax.tar.gz" "$name:sface_jax.tar.gz" --zone="$zone" --worker=all

# In a group of its own (-m), so that ^C comes to this script alone. The status comes back in a line, since gcloud gives
# one for all hosts.
asked=
trap 'asked=1; stop || true' INT TERM
set -m
{ everywhere "
set -e
if $running; then
  echo \"error: a run is at work on \$(hostname): end it with launch/tpu_pod_slice.sh $name $zone stop\"
  echo \"\$(hostname) ended with status 2\"
  exit 2
fi
mkdir -p sface_jax
cd sface_jax
[ ! -f .brought ] || xargs -d '\\n' rm -f < .brought # by the last start; what others put here stays
tar -xzf ../sface_jax.tar.gz
tar -tzf ../sface_jax.tar.gz | grep -v '/\$' > .brought
if ! cat requirements.lock pyproject.toml | cmp -s - .venv/installed; then
  $python -m venv --clear .venv
  .venv/bin/pip install -q -c requirements.lock -e '.[tpu,gcs]'
  cat requirements.lock pyproject.toml > .venv/installed
fi
export SFACE_DISTRIBUTED=auto
: > run.log
nohup .venv/bin/python -m sface_jax.main $(printf '%q ' "$@")>> run.log 2>&1 < /dev/null &
echo \$! > run.pid
tail -n +1 --pid=\$! -f run.log
status=0
wait \$! || status=\$?
echo \"\$(hostname) ended with status \$status\"
exit \$status" 2>&1 < /dev/null | tee "$scratch/log"; exit "${PIPESTATUS[0]}"; } &
set +m
while true; do
  status=0
  wait $! || status=$?
  kill -0 $! 2> /dev/null || break # else a signal ended the wait
done
first=$(sed -n 's/.* ended with status \([1-9][0-9]*\)\r*$/\1/p' "$scratch/log" | head -n 1)
((status == 0)) && [ -z "$first" ] && exit 0
[ -z "$asked" ] || first=${first:-143}
exit "${first:-$status}"
