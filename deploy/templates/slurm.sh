#!/bin/bash
$headers

# Written by `headrace slurm`. Submit with sbatch; the study's results go where its command says.
set -uo pipefail
$setup

export PATH=$bin_dir:"$$PATH"
export RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
# Whoever can reach Ray's ports can run code as this user, so every connection needs this token. It
# is handed on in the environment only: command lines can be read by everybody on a node.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN

scratch=$temp_dir/headrace-$$SLURM_JOB_ID
# Two ports for each job, so that two jobs may share a node; below the range the system hands out.
port=$$((20000 + 2 * (SLURM_JOB_ID % 5000)))
head_node=$$(scontrol show hostnames "$$SLURM_JOB_NODELIST" | head -n 1)
head_step='' worker_step='' driver=''

step_options=(--export=ALL --overlap --ntasks-per-node=1 --cpus-per-task="$$SLURM_CPUS_PER_TASK")
step() { srun "$${step_options[@]}" "$$@" </dev/null; }
# In the background the process is srun itself, so that its id is the one to signal.
background_step() { exec srun "$${step_options[@]}" "$$@" </dev/null; }
alive() { [ -n "$$1" ] && kill -0 "$$1" 2>/dev/null; }

# Asks the process $$1 to end, and ends it when it has not after $$2 seconds.
finish() {
    alive "$$1" || return 0
    kill -TERM "$$1" 2>/dev/null
    for _ in $$(seq $$((5 * $$2))); do
        alive "$$1" || break
        sleep 0.2
    done
    alive "$$1" && kill -KILL "$$1" 2>/dev/null
    wait "$$1" 2>/dev/null
}

take_down() {
    local code=$$?
    trap - EXIT
    trap '' TERM INT
    finish "$$driver" 30
    finish "$$worker_step" 15
    finish "$$head_step" 15
    step --nodes="$$SLURM_JOB_NUM_NODES" rm -rf "$$scratch"
    exit "$$code"
}
trap take_down EXIT
# Until the study runs there is nothing to save: end at once, by way of take_down.
trap 'exit 143' TERM INT

fail() {
    echo "headrace: $$1" >&2
    exit 1
}

step --nodes="$$SLURM_JOB_NUM_NODES" mkdir -m 700 "$$scratch" || fail "cannot make $$scratch"
address=$$(getent ahostsv4 "$$head_node" | awk '$$1 !~ /^127\./ {print $$1; exit}')
[ -n "$$address" ] || address=$$(hostname -I | awk '{print $$1}')
[ -n "$$address" ] || fail "no IPv4 address for $$head_node"

# Fields never go through Ray's object store: it gets little, the reservoirs need the memory.
ray_options=(
    --num-cpus="$$SLURM_CPUS_PER_TASK" --num-gpus=$gpus --object-store-memory=104857600
    --temp-dir="$$scratch" --dashboard-agent-listen-port=$$((port + 1)) --log-style=record --block
)
background_step --nodes=1 --ntasks=1 --nodelist="$$head_node" \
    ray start --head --node-ip-address="$$address" --port="$$port" \
    --include-dashboard=false "$${ray_options[@]}" &
head_step=$$!
for _ in $$(seq 240); do
    (exec 3<>"/dev/tcp/$$address/$$port") 2>/dev/null && break
    alive "$$head_step" || fail "Ray's head ended on $$head_node"
    sleep 0.5
done

if [ "$$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    others=$$((SLURM_JOB_NUM_NODES - 1))
    background_step --nodes=$$others --ntasks=$$others --exclude="$$head_node" \
        ray start --address="$$address:$$port" "$${ray_options[@]}" &
    worker_step=$$!
fi

export RAY_ADDRESS="$$address:$$port"
timeout 150 python - "$$SLURM_JOB_NUM_NODES" <<'PYTHON' || fail "not all nodes joined Ray in 120 s"
import sys
import time

import ray

wanted, deadline = int(sys.argv[1]), time.monotonic() + 120.0
ray.init(log_to_driver=False, logging_level="ERROR")
while len([node for node in ray.nodes() if node["Alive"]]) < wanted:
    if time.monotonic() > deadline:
        sys.exit(1)
    time.sleep(0.2)
PYTHON
echo "headrace: Ray runs on $$SLURM_JOB_NUM_NODES node(s), head on $$head_node"

$command &
driver=$$!
# From now on SIGTERM (scancel, the time limit) is passed on, and the study ends by itself.
trap 'kill -TERM "$$driver" 2>/dev/null' TERM INT
wait "$$driver"
code=$$?
while alive "$$driver"; do
    wait "$$driver"
    code=$$?
done
exit "$$code"
