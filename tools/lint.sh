#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/lint.sh: every static check; all of them run, then one exit code.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
export PATH=$PWD/.venv/bin:$PATH
status=0
check() {
  printf '==> %s\n' "$*"
  "$@" || status=1
}
mapfile -t scripts < <(git ls-files -co --exclude-standard | while read -r file; do
  [ -f "$file" ] && head -c 20 "$file" | grep -qaE '^#!/bin/(ba)?sh' && printf '%s\n' "$file"
done)
check ruff check .
check yamllint -s .
check shellcheck "${scripts[@]}"
check ansible-lint --offline -q
check antsibull-docs lint-collection-docs . --plugin-docs --validate-collection-refs=self
check antsibull-changelog lint
exit $status
