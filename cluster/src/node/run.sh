# The first process of a node, in its own file system: starts the node's programs, and reaps what
# they leave. The environment has NODE, its name, and ADDRESSES, separated by commas.
export PATH=/opt/kubernetes:/usr/sbin:/usr/bin:/sbin:/bin
log=/var/log/node
mkdir -p /run/lock

containerd --config /etc/kubernetes/containerd.toml >> $log/containerd.log 2>&1 &
until ctr version > /dev/null 2>&1; do
    sleep 0.05
done
for archive in /opt/images/*.tar; do
    # By time and size: an archive that was made anew is imported anew.
    mark=/var/lib/containerd/.imported-$(stat -c %Y-%s "$archive")-${archive##*/}
    [ -e "$mark" ] && continue
    ctr --namespace k8s.io images import "$archive" >> $log/import.log 2>&1 && touch "$mark"
done

# Programs that know the API server by its address alone end if they cannot reach it at first.
until curl --silent --insecure --max-time 2 --output /dev/null "$API/readyz"; do
    sleep 0.1
done
kubelet --config=/etc/kubernetes/kubelet.json --kubeconfig=/etc/kubernetes/kubelet.kubeconfig \
    --hostname-override="$NODE" --node-ip="$ADDRESSES" >> $log/kubelet.log 2>&1 &
kube-proxy --config=/etc/kubernetes/proxy.json >> $log/kube-proxy.log 2>&1 &

# bash reaps every child that it is given, also those it has not started.
while :; do
    wait -n || sleep 1
done
