#!/bin/sh
# A real systemd as process 1 of namespaces of its own, over a copy-on-write overlay of this machine's root file system.
#
#   machine.sh SHARED PROGRAM OPENCLAW UNIT
#
# boots it, prints "up PID" (systemd's pid out here), waits for the end of its stdin, and clears everything away, so that
# nothing is left however the test ends. SHARED is a folder that both sides see under the same path. PROGRAM and OPENCLAW
# become /usr/local/bin/openclaw-supervise and /usr/local/bin/openclaw in there; UNIT goes to /etc/systemd/system.
#
# Mounts, pids, network, host name, IPC and control groups are private, /proc/sys is read-only, and all that is written to
# files goes to a tmpfs. It needs root, overlayfs, cgroup2 and systemd; "needs ..." on stdout says what is missing.
set -eu
export LC_ALL=C

# ---- stage 2: process 1 of the namespaces, before it becomes systemd
if [ "$1" = --inside ]; then
    work=$2 shared=$3 program=$4 openclaw=$5 unit=$6
    root=$work/root
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/scratch" "$root"
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount -o remount,bind,ro "$root/proc/sys"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o mode=0755,nosuid tmpfs "$root/dev"
    for node in null zero full random urandom tty; do
        : >"$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$root/run"
    mkdir -m 1777 "$root/run/lock"
    # What lies on another file system than / is not in the overlay.
    mkdir -p "$root$shared" "$root/usr/local/bin"
    mount --bind "$shared" "$root$shared"
    cp "$program" "$root/usr/local/bin/openclaw-supervise"
    cp "$openclaw" "$root/usr/local/bin/openclaw"
    # Nothing of the distribution is started but what we ask for.
    rm -rf "$root"/lib/systemd/*/*.wants "$root"/lib/systemd/*-generators "$root/etc/systemd"
    mkdir -p "$root/lib/systemd/system-generators" "$root/etc/systemd/system" "$root/etc/systemd/user"
    cp "$unit" "$root/etc/systemd/system/"
    : >"$root/etc/fstab"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    printf '[Unit]\nDefaultDependencies=no\n' >"$root/etc/systemd/system/bare.target"
    cd "$root"
    mkdir .before
    pivot_root . .before
    umount -l /.before
    rmdir /.before
    exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test TERM=dumb \
        /lib/systemd/systemd --system --unit=bare.target --log-target=null --show-status=no \
        --default-standard-output=null --default-standard-error=null
fi

# ---- stage 1: a mount namespace and a control group of its own
if [ "$1" = --apart ]; then
    work=$2 group=$3
    shift 3
    mount -t tmpfs -o mode=0755 tmpfs "$work"
    mkdir "$work/upper" "$work/scratch" "$work/root" "$work/cgroup"
    mount -t cgroup2 cgroup2 "$work/cgroup"
    mkdir "$work/cgroup/$group"
    echo $$ >"$work/cgroup/$group/cgroup.procs"
    exec setsid unshare --fork --pid --mount --cgroup --uts --ipc --net --kill-child=SIGKILL -- \
        "$0" --inside "$work" "$@"
fi

# ---- the driver
needs() {
    echo "needs $*"
    exit 1
}
[ "$(id -u)" = 0 ] || needs "root (in a container --privileged): it boots a systemd in namespaces of its own"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || needs "overlayfs in the kernel"
grep -qw cgroup2 /proc/filesystems || needs "cgroup2 in the kernel"
for tool in unshare nsenter setsid mount; do
    command -v "$tool" >/dev/null || needs "$tool of util-linux"
done
if ! [ -x /lib/systemd/systemd ]; then
    # It does not become this machine's own init by that. Tests run at the same time, and apt-get locks the others out.
    flock "${TMPDIR:-/tmp}/ocs-systemd.lock" sh -c '[ -x /lib/systemd/systemd ] || {
        apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends systemd
    }' >/dev/null 2>&1 || needs "the package systemd, which apt-get could not install"
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/ocs-systemd.XXXXXX")
group=${work##*/}
log=$1/boot.log
outer=
init=
clear_away() {
    trap '' INT TERM
    # With the first process of a pid namespace the kernel ends all others.
    [ -z "$init" ] || kill -KILL "$init" 2>/dev/null || :
    [ -z "$outer" ] || { kill -KILL "$outer" 2>/dev/null || :; wait "$outer" 2>/dev/null || :; }
    # Not every control group can be removed at once after its last process has gone.
    unshare --mount sh -c 'mount -t cgroup2 cgroup2 "$1"
        for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            find "$1/$2" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$1/$2" ] || break
            sleep 0.1
        done' sh "$work" "$group" || :
    rmdir "$work" || :
}
trap clear_away EXIT
trap 'exit 130' INT TERM
unshare --mount --propagation private -- "$0" --apart "$work" "$group" "$@" </dev/null >"$log" 2>&1 &
outer=$!
try=0
while :; do
    init=$(tr -d ' ' <"/proc/$outer/task/$outer/children" 2>/dev/null || :)
    # Its control socket is there when it has booted.
    [ -n "$init" ] && [ -S "/proc/$init/root/run/systemd/private" ] && break
    kill -0 "$outer" 2>/dev/null || { init=; sed 's/^/boot: /' "$log"; needs "the right to mount overlayfs and cgroup2: see above"; }
    try=$((try + 1))
    [ "$try" -lt 1500 ] || { sed 's/^/boot: /' "$log"; needs "a machine on which systemd boots within 30 s: see above"; }
    sleep 0.02
done
echo "up $init"
# Until the test has ended.
cat >/dev/null
