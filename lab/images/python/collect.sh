#!/bin/sh
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# collect.sh ROOT: the interpreter of the Debian this runs in, with all that it loads.
set -eu
root=$1
python=$(readlink -f /usr/bin/python3)
library=/usr/lib/$(basename "$python")

mkdir -p "$root/usr/bin" "$root/usr/lib" "$root/etc/ssl/certs" "$root/tmp" "$root/root"
chmod 1777 "$root/tmp"
cp "$python" "$root/usr/bin/python3"
cp -a "$library" "$root/usr/lib/"
for unused in test idlelib tkinter lib2to3 ensurepip distutils pydoc_data config-* __pycache__; do
  # shellcheck disable=SC2086,SC2115 # a pattern; both are set
  rm -rf "$root$library"/$unused
done
find "$root" -name __pycache__ -prune -exec rm -rf {} +

# linked libraries, and those that glibc loads by name to resolve hosts
for lib in $(find "$python" "$library/lib-dynload" -type f -exec ldd {} + 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*' | grep -v : | sort -u) \
  /lib/*-linux-gnu*/libnss_files.so.2 /lib/*-linux-gnu*/libnss_dns.so.2 /lib/*-linux-gnu*/libresolv.so.2; do
  mkdir -p "$root$(dirname "$lib")"
  cp -L "$lib" "$root$lib"
done

cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0:root:/root:/sbin/nologin\n' >"$root/etc/passwd"
