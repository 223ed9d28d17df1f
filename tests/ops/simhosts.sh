#!/bin/bash
# Simulated hosts on one machine: each has its own network, pid, uts, ipc and mount namespaces, its
# own /dev/shm, /tmp/ray and /etc/hosts, behind a bridge that has no route to any other network.
#
#   simhosts.sh DIR up N            make hosts ctl, h1 .. hN
#   simhosts.sh DIR exec HOST CMD   run a command in one
#   simhosts.sh DIR kill HOST       power cut: everything in that host dies at once
#   simhosts.sh DIR boot HOST       switch it on again
#   simhosts.sh DIR cut|heal HOST   pull or plug its network cable
#   simhosts.sh DIR down            end everything that was started, leave nothing behind
#
# DIR keeps the state; its last part (letters, digits, dashes) names the network namespaces, so that
# several sets of hosts can live side by side. Needs root, ip, nsenter, unshare.
set -euo pipefail

DIR=$(realpath -m "$1")
TAG=$(basename "$DIR")
SUBNET=10.99.0
shift

namespace() { echo "$TAG-$1"; }

boot() {
    local host=$1 home=$DIR/$1
    mkdir -p "$home/ray" "$home/cgroup"
    rm -rf "$home/ready" "${home:?}/ray/"*
    # The shell that is left is process 1 of the host: when it dies, so does everything in the host.
    # nsenter and not `ip netns exec`, which hides the cgroup tree that slurmd needs. /sys is mounted
    # anew so that the host sees its own interfaces, with the cgroup tree moved back into it.
    nsenter --net="/run/netns/$(namespace "$host")" \
        unshare --pid --fork --kill-child --mount-proc --uts --ipc --mount --propagation private \
        bash -c "
            set -e
            hostname $host
            mount --rbind /sys/fs/cgroup $home/cgroup
            mount -t sysfs sysfs /sys
            mount --move $home/cgroup /sys/fs/cgroup
            mount -t tmpfs -o size=2g tmpfs /dev/shm
            mkdir -p /tmp/ray
            mount --bind $home/ray /tmp/ray
            mount --bind $DIR/hosts /etc/hosts
            touch $home/ready
            trap 'exit 0' TERM
            while :; do sleep 1000 & wait \$!; done
        " </dev/null >"$home/init.log" 2>&1 &
    echo $! >"$home/outer.pid"
    for _ in $(seq 250); do
        [ -e "$home/ready" ] && break
        sleep 0.02
    done
    [ -e "$home/ready" ] || { cat "$home/init.log" >&2; exit 1; }
    pgrep -P "$(cat "$home/outer.pid")" >"$home/init.pid"
}

up() {
    local switch host address
    switch=$(namespace sw)
    mkdir -p "$DIR"
    ip netns add "$switch"
    ip -n "$switch" link add br0 type bridge
    ip -n "$switch" link set br0 up
    printf '127.0.0.1 localhost\n' >"$DIR/hosts"
    for host in ctl $(seq -f h%.0f "$1"); do
        address=$SUBNET.1
        [ "$host" = ctl ] || address=$SUBNET.$((10 + ${host#h}))
        echo "$address $host" >>"$DIR/hosts"
        ip netns add "$(namespace "$host")"
        ip -n "$(namespace "$host")" link set lo up
        ip link add veth0 netns "$(namespace "$host")" type veth peer name "p-$host" netns "$switch"
        ip -n "$(namespace "$host")" addr add "$address/24" dev veth0
        ip -n "$(namespace "$host")" link set veth0 up
        ip -n "$switch" link set "p-$host" master br0 up
    done
    for host in ctl $(seq -f h%.0f "$1"); do boot "$host"; done
}

down() {
    local file name
    for file in "$DIR"/*/outer.pid; do
        # unshare ends its child with it, and that child is process 1 of the host.
        [ -e "$file" ] && kill -9 "$(cat "$file")" 2>/dev/null || true
    done
    for name in $(ip netns list | awk '{print $1}' | grep -E "^$TAG-(sw|ctl|h[0-9]+)\$"); do
        ip netns del "$name"
    done
}

case $1 in
up) up "$2" ;;
boot) boot "$2" ;;
exec)
    host=$2
    shift 2
    exec nsenter -t "$(cat "$DIR/$host/init.pid")" -n -u -p -m -i --wd="$PWD" -- "$@"
    ;;
kill) kill -9 "$(cat "$DIR/$2/init.pid")" ;;
cut) ip -n "$(namespace sw)" link set "p-$2" down ;;
heal) ip -n "$(namespace sw)" link set "p-$2" up ;;
down) down ;;
*)
    echo "unknown: $1" >&2
    exit 2
    ;;
esac
