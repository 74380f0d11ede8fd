# What all job scripts share: the settings, the launch, and the way out when the time is over. They
# source it at the toolkit's root, where jobs are submitted:
#   on_all SCRIPT FLAGS   as many processes as GPUs on each node of the job (or $PROCESSES)
#   on_one SCRIPT FLAGS   one process
# A script that was stopped has saved; its job queues itself again. A script that fails ends the job.
set -uf
. "${CONFIG:-slurms/config.sh}" || exit 2
PYTHON=${PYTHON:-.venv/bin/python}
# one task of an array has the number of the whole array
JOB=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
JOB=${JOB:-$SLURM_JOB_ID}
ASKED='' STEP=''
ask_to_stop() {
  ASKED=yes
  # srun passes this signal on, and torchrun hands it to the scripts; they save and stop
  [ -z "$STEP" ] || kill -USR1 "$STEP" 2>/dev/null
}
trap ask_to_stop USR1 TERM

on_one() { follow srun --nodes 1 --ntasks 1 --cpus-per-task "$SLURM_CPUS_ON_NODE" "$PYTHON" "$@"; }

on_all() {
  local nodes=$SLURM_JOB_NUM_NODES processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
  local cpus=$SLURM_CPUS_ON_NODE
  if [ $((nodes * processes)) = 1 ]; then
    on_one "$@"
  elif [ "${LAUNCHER:-torchrun}" = srun ]; then
    follow srun --nodes "$nodes" --ntasks $((nodes * processes)) --ntasks-per-node "$processes" \
      --cpus-per-task $((cpus < processes ? 1 : cpus / processes)) --kill-on-bad-exit=0 "$PYTHON" "$@"
  else
    local first
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    follow srun --nodes "$nodes" --ntasks "$nodes" --ntasks-per-node 1 --cpus-per-task "$cpus" \
      "$PYTHON" -m torch.distributed.run --nnodes "$nodes" --nproc_per_node "$processes" \
      --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" \
      --rdzv_endpoint "$first:${PORT:-$((20000 + SLURM_JOB_ID % 10000))}" \
      --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 "$@"
  fi
}

follow() {
  local pid code
  "$@" &
  pid=$!
  sleep 1 # in its first moments srun loses signals
  STEP=$pid
  [ -z "$ASKED" ] || ask_to_stop
  # a signal ends the waiting, not what is waited for
  while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
  wait "$pid"
  code=$?
  STEP=''
  [ "$code" != 0 ] || return 0
  echo "job $JOB: the script ended with exit code $code" >&2
  if [ -n "$ASKED" ] || [ "$code" = 75 ] || is_preempted; then requeue; fi
  exit "$code"
}

field() { scontrol show job --oneliner "$JOB" | grep -oP "(?<= $1=)\S+"; }

# where the site sends a preempted job's steps SIGTERM, the script hears nothing of it
is_preempted() {
  local since start
  since=$(field PreemptTime) start=$(field StartTime)
  # both are empty where Slurm does not answer
  [ -n "$since" ] && [ -n "$start" ] && [ "$since" != None ] && [[ ! $since < $start ]]
}

# a job that was cancelled is not running any more
requeue() {
  [ "$(field JobState)" = RUNNING ] || exit 75
  scontrol requeue "$JOB" || echo "cannot queue job $JOB again: submit it again to go on" >&2
  exit 75
}
