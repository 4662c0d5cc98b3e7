#!/bin/bash
# A one-node Slurm on loopback, for tests: slurm-local.sh start|stop. It needs root and Debian's packages
#     apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
# Everything lies in one folder, $SLURM_LOCAL; clients need the line that `start` prints. Nothing of it is for real work:
# no control groups, no accounts, CPUs that the machine may not have, a minute is the shortest limit that Slurm knows.
# Partitions: low (default), which is preempted with requeue; high, which preempts it.
set -euo pipefail
FOLDER=${SLURM_LOCAL:-${TMPDIR:-/tmp}/slurm-local}
HOST=$(hostname -s)
export SLURM_CONF=$FOLDER/slurm.conf

stop() {
    local name pid
    for name in slurmd slurmctld munged; do
        [ -s "$FOLDER/$name.pid" ] || continue
        pid=$(cat "$FOLDER/$name.pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep .1; done
        rm -f "$FOLDER/$name.pid"
    done
}

start() {
    command -v slurmctld slurmd munged sbatch >/dev/null || {
        echo "slurm-local: no Slurm here: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge" >&2
        exit 1
    }
    stop
    mkdir -p "$FOLDER"/{state,spool,log}
    chmod 755 "$FOLDER" "$FOLDER"/{state,spool,log}
    # munge refuses a key that others can read.
    [ -s "$FOLDER/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom > "$FOLDER/munge.key")
    munged --key-file="$FOLDER/munge.key" --socket="$FOLDER/munge.sock" --pid-file="$FOLDER/munged.pid" \
        --log-file="$FOLDER/log/munged.log" --seed-file="$FOLDER/munge.seed"
    configuration > "$SLURM_CONF"
    touch "$FOLDER"/gpu{0,1}
    echo "Name=gpu File=$FOLDER/gpu[0-1]" > "$FOLDER/gres.conf"
    slurmctld
    slurmd
    for _ in $(seq 150); do
        if sinfo -h -t idle -o %n 2>/dev/null | grep -q .; then
            echo "export SLURM_CONF=$SLURM_CONF"
            exit 0
        fi
        sleep .1
    done
    echo "slurm-local: Slurm did not come up, see $FOLDER/log" >&2
    stop
    exit 1
}

# cred_expire=5: a job that was requeued starts again after 12 s instead of 127 s.
# preempt_send_user_signal: a job that is preempted gets the signal of its --signal.
# config_overrides: the node has as many CPUs as are asked for, not as many as there are.
# GresTypes: two GPUs that are not there, so that jobs can ask for them.
configuration() {
    cat <<CONF
ClusterName=local
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$FOLDER/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdLogFile=$FOLDER/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none
PriorityType=priority/basic
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
JobRequeue=1
MinJobAge=300
KillWait=5
OverTimeLimit=0
ReturnToService=2
GresTypes=gpu
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=${CPUS:-4} RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=$HOST Default=YES MaxTime=60 PriorityTier=1 GraceTime=10
PartitionName=high Nodes=$HOST MaxTime=60 PriorityTier=10 PreemptMode=OFF
CONF
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *) echo "slurm-local: expected start or stop" >&2; exit 2 ;;
esac
