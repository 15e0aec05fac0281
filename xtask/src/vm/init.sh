#!/usr/bin/busybox sh
# Process 1 of the guest. What it finds out goes to the second serial port, line by line, where the host reads it; the first
# one is the kernel's console. The last line is "end" with the exit status of the self-test: without it the guest died.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp RUST_BACKTRACE=1

mount -t devtmpfs dev /dev
# Where it is a module, opening this loads it.
[ -e /dev/net/tun ] || { mkdir -p /dev/net; mknod /dev/net/tun c 10 200; }
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
exec </dev/null >/dev/ttyS0 2>&1
# Nothing asks for this one by name; where it is built in, or not there at all, there is nothing to load.
modprobe -q br_netfilter
ip link set lo up

{
  echo "kernel $(uname -r)"
  if [ -e /script ]; then
    # Not busybox' shell, which takes its own programs before those that are there.
    /usr/sbin/sh /script 2>&1
    echo "end $?"
  else
    # A port that nobody uses: only what is armed, and what is missing, is of interest.
    wsltrace --port 65535 --json --duration 100ms
    wsltrace selftest --json $(cat /scenarios)
    echo "end $?"
  fi
} >/dev/ttyS1

sync
poweroff -f
