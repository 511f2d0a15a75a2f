#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/stages.sh TARGET... [-- TARGET...]...: make targets, those before the first -- one after the other, then the
# groups after it side by side: a scenario waits for engines half of its time. A failed stage does not hide what the
# others say, but nothing works without those of the first group. Each stage's output comes in one piece when it ends.
# Ends with a table of times, and one line over all tests: pytest's cases, and each stage without pytest as one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
logs=.cache/test
rm -rf "$logs"
mkdir -p "$logs"
# Ctrl-C is ignored by what runs in the background of a script.
trap 'trap - TERM; kill 0' INT TERM

count() { # WORD LOG: sum of "N WORD" in the log's pytest summary lines
  sed 's/\x1b\[[0-9;]*m//g' "$2" | grep -aE '^ *=+ .*[0-9]+ (passed|failed|error|skipped).* in [0-9.]+s' |
    grep -aoE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}'
}

stage() { # TARGET: run it, then show what it said; leaves its result in a file
  local log=$logs/$1.log start=$SECONDS code passed failed skipped
  printf '######## %s begins (%s)\n' "$1" "$log"
  make --no-print-directory "$1" >"$log" 2>&1 </dev/null
  code=$?
  passed=$(count passed "$log") failed=$(($(count failed "$log") + $(count error "$log"))) skipped=$(count skipped "$log")
  # a stage without pytest counts as one; so does a failure that no test case stands for
  if [ "$code" != 0 ] && [ "$failed" = 0 ]; then failed=1; elif [ $((passed + failed)) = 0 ]; then passed=1; fi
  echo "$1 $((SECONDS - start)) $code $passed $failed $skipped" >"$logs/$1.result"
  {
    flock 9 # one stage's output at a time
    printf '\n######## %s\n' "$1"
    cat "$log"
    printf '######## %s: %s after %d s\n\n' "$1" "$([ "$code" = 0 ] && echo ok || echo FAILED)" $((SECONDS - start))
  } 9>"$logs/lock"
  return "$code"
}

all=("$@")
while [ $# != 0 ] && [ "$1" != -- ]; do
  stage "$1" || { set --; break; }
  shift
done
while [ $# != 0 ]; do
  shift
  group=()
  while [ $# != 0 ] && [ "$1" != -- ]; do
    group+=("$1")
    shift
  done
  for target in "${group[@]}"; do stage "$target"; done &
done
wait

passed=0 failed=0 skipped=0
printf '\n%-16s %7s\n' stage time
for target in "${all[@]}"; do
  [ -e "$logs/$target.result" ] || continue
  read -r _ seconds code p f s <"$logs/$target.result"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  printf '%-16s %5d s   %s\n' "$target" "$seconds" "$([ "$code" = 0 ] && echo ok || echo "FAILED ($logs/$target.log)")"
done
printf '%-16s %5d s\n\n' total $SECONDS
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
