#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/stages.sh TARGET...: make targets one after the other. A failed one does not hide what the later ones
# say (but nothing works without bootstrap-test). Ends with a table of times, and one line over all tests:
# pytest's cases, and each stage without pytest as one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
logs=.cache/test
rm -rf "$logs"
mkdir -p "$logs"
table=() passed=0 failed=0 skipped=0

count() { # WORD LOG: sum of "N WORD" in the log's pytest summary lines
  sed 's/\x1b\[[0-9;]*m//g' "$2" | grep -aE '^ *=+ .*[0-9]+ (passed|failed|error|skipped).* in [0-9.]+s' |
    grep -aoE "[0-9]+ $1" | awk '{n += $1} END {print n + 0}'
}

for stage in "$@"; do
  printf '\n######## %s\n' "$stage"
  log=$logs/$stage.log start=$SECONDS
  make --no-print-directory "$stage" 2>&1 | tee "$log"
  code=${PIPESTATUS[0]}
  p=$(count passed "$log") f=$(($(count failed "$log") + $(count error "$log"))) s=$(count skipped "$log")
  # a stage without pytest counts as one; so does a failure that no test case stands for
  if [ "$code" != 0 ] && [ "$f" = 0 ]; then f=1; elif [ $((p + f)) = 0 ]; then p=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  table+=("$(printf '%-16s %5d s   %s' "$stage" $((SECONDS - start)) "$([ "$code" = 0 ] && echo ok || echo "FAILED ($log)")")")
  [ "$code" = 0 ] || [ "$stage" != bootstrap-test ] || break
done

printf '\n%-16s %7s\n' stage time
printf '%s\n' "${table[@]}"
printf '%-16s %5d s\n\n' total $SECONDS
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
