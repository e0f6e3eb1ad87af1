#!/bin/busybox sh
# The first process of an emulated machine: it runs the tests, says how they went, and ends.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
# What the kernel says from here on is looked at in the end.
dmesg -n 1
for module in $(cat /modules/order); do
    insmod "/modules/$module.ko" || echo "matrix: no module $module"
done
ip link set lo up
echo "matrix: Linux $(uname -r), booted in $(cut -d' ' -f1 /proc/uptime) s"
export ENFORCER_BIN=/bin/enforcer ENFORCER_PATIENCE=8 RUST_BACKTRACE=0
cd /tmp
while read -r program arguments; do
    # shellcheck disable=SC2086
    "/tests/$program" --test-threads=1 $arguments || echo "matrix: $program ended with $?"
done < /tests/list
dmesg | grep -E 'WARNING:|BUG:|Oops|Call Trace' | sed 's/^/matrix: the kernel says /'
echo "matrix: done after $(cut -d' ' -f1 /proc/uptime) s"
poweroff -f
