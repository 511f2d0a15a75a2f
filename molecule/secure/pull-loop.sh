#!/bin/sh
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# pull-loop.sh LOG PAUSE COMMAND...: run it again and again with PAUSE seconds between; a line each: begin, end, exit
# code, last words. Stops by itself after an hour.
log=$1 pause=$2
shift 2
until_then=$(($(date +%s) + 3600))
while [ "$(date +%s)" -lt "$until_then" ]; do
  begin=$(date +%s.%N)
  words=$("$@" 2>&1)
  code=$?
  echo "$begin $(date +%s.%N) $code $(echo "$words" | tail -n 1 | tail -c 300)" >>"$log"
  sleep "$pause"
done
