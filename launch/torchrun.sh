#!/usr/bin/env bash
# A run of capkit on machines without a scheduler, one process a GPU. On a single machine `capkit trainer=ddp` does it
# too. On several, the same command on each of them, with the first one's address:
#
#   launch/torchrun.sh trainer=deepspeed_2 run_dir=runs/mle
#   NODES=2 MASTER_ADDR=10.0.0.1 launch/torchrun.sh trainer=deepspeed_2 run_dir=/shared/runs/mle
#
# NODES machines (1), PROCESSES on each (gpu: as many as it has GPUs), MASTER_PORT of the first one (29500).
# run_dir is wanted: the machines share the folder, and the same command goes on with the run in it. SIGTERM and SIGUSR1
# have it saved first; the status is then 75. On several machines, signal one of them.
set -euo pipefail

case " $* " in
*" run_dir="*) ;;
*)
  echo "error: several ranks write to one folder, and a new start goes on with it; give run_dir=PATH" >&2
  exit 2
  ;;
esac
nodes=${NODES:-1}
if [ "$nodes" -gt 1 ] && [ -z "${MASTER_ADDR:-}" ]; then
  echo "error: MASTER_ADDR must be the address of the first of $nodes machines" >&2
  exit 2
fi

"${TORCHRUN:-torchrun}" \
  --nnodes="$nodes" \
  --nproc-per-node="${PROCESSES:-gpu}" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="${MASTER_ADDR:-localhost}:${MASTER_PORT:-29500}" \
  --rdzv-id="${RUN_ID:-capkit}" \
  --signals-to-handle=SIGTERM,SIGUSR1,SIGINT,SIGHUP,SIGQUIT \
  --shutdown-timeout=300 \
  --no-python "${CAPKIT:-capkit}" "$@" &
ranks=$!

# torchrun passes signals on to its ranks and then ends with 1, whatever they end with.
asked=
trap 'asked=yes; kill -TERM "$ranks"' TERM USR1
trap : INT
status=0
wait "$ranks" || status=$?
while kill -0 "$ranks" 2>/dev/null; do # a signal that is trapped ends a wait before its time
  status=0
  wait "$ranks" || status=$?
done
if [ -n "$asked" ] && [ "$status" -ne 0 ]; then
  status=75 # asked to stop: the same command goes on
fi
exit "$status"
