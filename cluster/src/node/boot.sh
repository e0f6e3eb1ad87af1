# Run by the first process of a new node, in namespaces of its own: makes the node's file system of
# the machine's parts, and goes over into it. The environment says where the parts are:
#   NODE      the node's name
#   STATE     the folder with what this node writes
#   LOWER     the root file system that all nodes share
#   BIN, IMG  programs and image archives
#   GROUPS_   control groups of the node's own programs, separated by spaces
set -eu
root=$STATE/root

# In the node's groups first, so that all it starts is counted there.
for group in $GROUPS_; do
    echo 0 > "$group/cgroup.procs"
done

mount --make-rprivate /
hostname "$NODE"
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$STATE/upper,workdir=$STATE/work" "$root"
for pair in containerd:var/lib/containerd kubelet:var/lib/kubelet conf:etc/kubernetes \
    cni:etc/cni/net.d log:var/log/node; do
    mkdir -p "$root/${pair#*:}"
    mount --bind "$STATE/${pair%%:*}" "$root/${pair#*:}"
done
mkdir -p "$root/opt/kubernetes" "$root/opt/images" "$root/.old"
mount --bind "$BIN" "$root/opt/kubernetes"
mount --bind "$IMG" "$root/opt/images"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
# One of its own, as a machine has: what is pinned goes when the node does.
mount -t bpf bpf "$root/sys/fs/bpf"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs tmp "$root/tmp"

# kubelet would set these on the whole machine. It finds them set already.
mkdir -p "$root/run/settings"
while read -r setting value; do
    [ -e "/proc/sys/$setting" ] || continue
    file=$root/run/settings/$(echo "$setting" | tr / .)
    echo "$value" > "$file"
    mount --bind "$file" "$root/proc/sys/$setting"
done <<'SETTINGS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
SETTINGS

echo "$NODE" > "$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
cd "$root"
pivot_root . .old
umount -l /.old
mount --make-rshared /
# With a shell of the node's own from here on: nothing of the machine's file system stays in use.
exec /bin/bash /etc/kubernetes/run.sh
