#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Boots the system's own systemd as process 1 of new namespaces, over an overlay of the root filesystem. Nothing of the
# host changes: files go to a tmpfs that dies with the namespaces, /run, /dev, /dev/shm and /tmp are new.
# usage: boot.sh FOLDER     an empty folder for the mounts. Prints nothing; runs until it is killed.
set -euo pipefail
folder=$1
name=reef-systemd-$$
unified=/sys/fs/cgroup
[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ] || unified=/sys/fs/cgroup/unified
controllers=() # those that have a hierarchy of their own: cgroup v1, and systemd's own there
if [ "$unified" != /sys/fs/cgroup ]; then
    for controller in systemd memory pids devices; do
        [ -d "/sys/fs/cgroup/$controller" ] && controllers+=("$controller")
    done
fi
groups=("$unified/$name")
for controller in "${controllers[@]}"; do groups+=("/sys/fs/cgroup/$controller/$name"); done
for group in "${groups[@]}"; do
    mkdir -p "$group"
    echo $$ >"$group/cgroup.procs"
done
leave() { # a cgroup goes when nobody is in it: this shell moves out, the others are dead
    for group in "${groups[@]}"; do
        echo $$ >"$(dirname "$group")/cgroup.procs" || true
        for _ in $(seq 50); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
            sleep 0.1
        done
    done
}
trap leave EXIT
trap 'exit 0' TERM

inside() {
    cd "$1"
    mount -t tmpfs -o size=2g tmpfs .
    mkdir upper work root
    mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
    cd root
    : >etc/machine-id
    # Nothing of the host is started, only what a test starts.
    rm -rf etc/systemd/system/*.wants
    mkdir -p etc/systemd/system/multi-user.target.wants var/log/journal mnt/host
    rm -rf var/log/journal/* usr/sbin/policy-rc.d # which containers have, so that nothing starts
    for mask in systemd-logind systemd-timesyncd systemd-networkd systemd-resolved getty@tty1 console-getty; do
        ln -sf /dev/null "etc/systemd/system/$mask.service"
    done
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=755 tmpfs dev
    mount -t tmpfs -o mode=1777 tmpfs tmp
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/shm dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    if [ $# = 1 ]; then
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    else
        mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
        mkdir sys/fs/cgroup/unified
        mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
        for controller in "${@:2}"; do
            mkdir "sys/fs/cgroup/$controller"
            options=$controller
            [ "$controller" = systemd ] && options=none,name=systemd
            mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/$controller"
        done
    fi
    ip link set lo up 2>/dev/null || true
    mount --make-rprivate /
    pivot_root . mnt/host
    cd /
    umount -l /mnt/host
    exec env -i container=reef PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --log-target=journal --show-status=0
}
export -f inside
unshare -m -p -u -i -n -C --fork --kill-child --propagation private \
    bash -ec 'inside "$@"' inside "$folder" "${controllers[@]}" &
wait $!
