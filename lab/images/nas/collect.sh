#!/bin/sh
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# collect.sh ROOT: the appliance's root file system, out of the files of the Debian this runs in.
set -eu
root=$1

for dir in bin sbin usr/bin usr/sbin usr/lib usr/local/bin usr/local/sbin lib lib64 etc/docker etc/dropbear \
  etc/ssl/certs home/root/.ssh proc sys dev run tmp var/log var/lib mnt/HD/HD_a2 shares; do
  mkdir -p "$root/$dir"
done
chmod 700 "$root/home/root" "$root/home/root/.ssh"
chmod 1777 "$root/tmp"
ln -s ../run "$root/var/run"
ln -s home/root "$root/root"
ln -s ../mnt/HD/HD_a2 "$root/shares/Volume_1"

# a program and the libraries it is linked with
copy() {
  for file in "$@"; do
    mkdir -p "$root$(dirname "$file")"
    cp -aL "$file" "$root$file"
    ldd "$file" 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' | while read -r lib; do
      mkdir -p "$root$(dirname "$lib")"
      [ -e "$root$lib" ] || cp -L "$lib" "$root$lib"
    done
  done
}

cp /bin/busybox "$root/bin/busybox"
for applet in $(/bin/busybox --list); do
  [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
copy /usr/sbin/dockerd /usr/bin/docker /usr/sbin/docker-proxy /usr/bin/docker-init \
  /usr/bin/containerd /usr/bin/containerd-shim-runc-v2 /usr/sbin/runc \
  /usr/sbin/xtables-nft-multi /usr/sbin/dropbear /usr/bin/dropbearkey
for name in iptables ip6tables iptables-save iptables-restore ip6tables-save ip6tables-restore; do
  ln -s xtables-nft-multi "$root/usr/sbin/$name"
done

# loaded by name, not linked: iptables' extensions and glibc's resolvers
for dir in /usr/lib/*-linux-gnu*/xtables; do
  mkdir -p "$root$dir"
  cp -a "$dir/." "$root$dir/"
done
for lib in /lib/*-linux-gnu*/libnss_files.so.2 /lib/*-linux-gnu*/libnss_dns.so.2 /lib/*-linux-gnu*/libresolv.so.2; do
  mkdir -p "$root$(dirname "$lib")"
  cp -L "$lib" "$root$lib"
done

cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp /etc/protocols /etc/services /etc/ethertypes "$root/etc/" 2>/dev/null || true
printf 'sshd:x:0:0:sshd:/home/root:/bin/sh\nroot:x:0:0:root:/home/root:/bin/sh\n' >"$root/etc/passwd"
printf 'sshd:*:19000:0:99999:7:::\nroot:*:19000:0:99999:7:::\n' >"$root/etc/shadow"
chmod 600 "$root/etc/shadow"
printf 'root:x:0:\ndocker:x:999:\n' >"$root/etc/group"
printf '/bin/sh\n' >"$root/etc/shells"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf 'NAME="LabNAS"\nID=labnas\nVERSION_ID="5"\nPRETTY_NAME="LabNAS OS 5"\n' >"$root/usr/lib/os-release"
ln -s ../usr/lib/os-release "$root/etc/os-release"
printf '{ "log-level": "warn" }\n' >"$root/etc/docker/daemon.json"
