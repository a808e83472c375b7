#!/bin/sh
# The first program of a machine: turns the namespaces that it was started in into one, and becomes its init.
# Everything mounted here is mounted in the machine's own mount namespace alone, so that it ends with the machine,
# whichever way that ends.
#
# In:  LAB_LOWER     root filesystem below the overlay       LAB_DIRECTORY  the machine's own upper/ work/ root/ data/
#      LAB_HOSTNAME  its name                                LAB_CGROUPS    lines "DIRECTORY OPTIONS" (v1), or "v2"
#      LAB_BINDS     lines "SOURCE TARGET MODE", mode ro or rw
#      LAB_SYSCTLS   lines "PATH VALUE": files shown in place of these settings
set -eu
root=$LAB_DIRECTORY/root

mount -t overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_DIRECTORY/upper,workdir=$LAB_DIRECTORY/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/run/lock" "$root/run/sshd" "$root/run/lab"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
for device in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'kmsg 1 11' 'tty 5 0' 'fuse 10 229'; do
  set -- $device
  mknod -m 666 "$root/dev/$1" c "$2" "$3"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"

# Mounted anew in our cgroup namespace, each hierarchy begins at the machine's own cgroup.
if [ "$LAB_CGROUPS" = v2 ]; then
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
  mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
  echo "$LAB_CGROUPS" | while read -r directory options; do
    mkdir "$root/sys/fs/cgroup/$directory"
    mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/$directory"
  done
  # The kernel's list names controllers that are mounted nowhere too. CRI-O would set limits for them (hugetlb).
  while read -r controller hierarchy rest; do
    [ "$hierarchy" = 0 ] || printf '%s\t%s\t%s\n' "$controller" "$hierarchy" "$rest"
  done <"$root/proc/cgroups" >"$root/run/lab/cgroups"
  mount --bind "$root/run/lab/cgroups" "$root/proc/cgroups"
fi

echo "$LAB_BINDS" | while read -r source target mode; do
  [ -n "$source" ] || continue
  if [ -d "$source" ]; then mkdir -p "$root$target"; else mkdir -p "$(dirname "$root$target")"; [ -e "$root$target" ] || : >"$root$target"; fi
  mount --bind "$source" "$root$target"
  if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root$target"; fi
done

# The kubelet sets these for the whole kernel. Here it writes to files of its own, and the host stays as it was.
echo "$LAB_SYSCTLS" | while read -r path value; do
  [ -n "$path" ] && [ -e "$root/proc/sys/$path" ] || continue
  file=$root/run/lab/$(echo "$path" | tr / .)
  echo "$value" >"$file"
  mount --bind "$file" "$root/proc/sys/$path"
done

hostname "$LAB_HOSTNAME"
mkdir -p "$root/.host"
cd "$root"
pivot_root . .host
cd /
umount -l /.host
rmdir /.host
# As systemd does: mounts with HostToContainer propagation need a shared root.
mount --make-rshared /
: >/run/lab/ready
# Debian has tini under its own name, and under the one that Docker gives it.
init=$(command -v docker-init || command -v tini)
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$init" -- sleep infinity
