#!/usr/bin/env bash
# A real Slurm cluster for as long as a command runs: munged, slurmctld and the slurmd of two nodes, n1 and n2.
#
#   tests/launch/slurm/cluster.sh FOLDER COMMAND...
#
# Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge. Everything lies in FOLDER, an absolute
# path, and nothing outlives the command: all runs in namespaces of its own, where /etc/hosts also knows the nodes.
set -euo pipefail

if [ "${1-}" != inside ]; then
  exec unshare --mount --pid --fork --kill-child --mount-proc "$0" inside "$@"
fi
shift
folder=${1:?usage: cluster.sh FOLDER COMMAND...}
shift
here=$(cd "$(dirname "$0")" && pwd)
port=$((20000 + RANDOM % 10000))

mkdir -p "$folder"/{state,munge}
chmod 700 "$folder/munge"
{ cat /etc/hosts; echo "127.0.0.1 n1 n2"; } > "$folder/hosts"
mount --bind "$folder/hosts" /etc/hosts
sed -e "s|@FOLDER@|$folder|g; s|@HOST@|$(hostname -s)|g" \
  -e "s|@PORT1@|$((port + 1))|g; s|@PORT2@|$((port + 2))|g; s|@PORT@|$port|g" "$here/slurm.conf" > "$folder/slurm.conf"
for i in 0 1 2 3; do mknod "$folder/gpu$i" c 1 3; done # which Slurm counts, and nobody opens
echo "NodeName=n[1-2] Name=gpu File=$folder/gpu[0-3]" > "$folder/gres.conf"
export SLURM_CONF="$folder/slurm.conf"

dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
chmod 400 "$folder/munge/key"
munged --force --socket="$folder/munge/socket" --key-file="$folder/munge/key" --log-file="$folder/munge/log" \
  --pid-file="$folder/munge/pid" --seed-file="$folder/munge/seed"
slurmctld -c
slurmd -N n1
slurmd -N n2

for _ in $(seq 100); do
  if [ "$(sinfo --noheader --Node --states=idle 2> /dev/null | sort -u -k1,1 | wc -l)" -ge 2 ]; then
    exec "$@"
  fi
  sleep 0.2
done
sinfo --Node >&2 || true
tail -n 20 "$folder"/*.log >&2
echo "error: the cluster did not come up" >&2
exit 1
