#!/bin/bash
# A Slurm cluster on simulated hosts: munged and slurmctld on ctl, a slurmd on each of h1 .. hN.
#
#   slurm_cluster.sh DIR N      start; every file of the cluster lies under DIR
#   simhosts.sh DIR down        end it
#
# Prints the nodes once all are idle. SLURM_CONF=DIR/slurm/slurm.conf is for those who talk to it.
set -euo pipefail

DIR=$(realpath -m "$1")
N=$2
HOSTS="$(dirname "$0")/simhosts.sh"
S=$DIR/slurm

bash "$HOSTS" "$DIR" up "$N"
mkdir -p "$S"/{state,spool,log,run}
chmod 755 "$S"
(umask 077 && head -c 1024 /dev/urandom >"$S/munge.key")
cat >"$S/slurm.conf" <<CONF
ClusterName=$(basename "$DIR")
SlurmctldHost=ctl(10.99.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$S/run/munge.sock,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation=$S/state
SlurmdSpoolDir=$S/spool/%n
SlurmctldPidFile=$S/run/slurmctld.pid
SlurmdPidFile=$S/run/slurmd-%n.pid
SlurmctldLogFile=$S/log/slurmctld.log
SlurmdLogFile=$S/log/slurmd-%n.log
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=5
TCPTimeout=2
KillWait=3
CONF
for i in $(seq "$N"); do
    echo "NodeName=h$i NodeHostname=h$i NodeAddr=10.99.0.$((10 + i)) CPUs=4 RealMemory=8000 State=UNKNOWN"
done >>"$S/slurm.conf"
echo "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP" >>"$S/slurm.conf"
echo "CgroupAutomount=no" >"$S/cgroup.conf"
export SLURM_CONF=$S/slurm.conf
on() { bash "$HOSTS" "$DIR" exec "$@"; }
on ctl munged --key-file="$S/munge.key" --socket="$S/run/munge.sock" --pid-file="$S/run/munged.pid" \
    --log-file="$S/log/munged.log" --seed-file="$S/run/munged.seed" --force
on ctl slurmctld -f "$S/slurm.conf"
for i in $(seq "$N"); do on "h$i" slurmd -f "$S/slurm.conf"; done
for _ in $(seq 100); do
    [ "$(on ctl sinfo -h -t idle -o %D 2>/dev/null | tr -d '\n')" = "$N" ] && break
    sleep 0.1
done
on ctl sinfo -N
[ "$(on ctl sinfo -h -t idle -o %D | tr -d '\n')" = "$N" ]
