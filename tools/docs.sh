#!/bin/bash
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# tools/docs.sh: the reference of every role, module and filter as HTML, in docs/site/build/html.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH
export ANSIBLE_COLLECTIONS_PATH=$PWD/collections
rm -rf docs/site/rst docs/site/build
# antsibull-docs takes only a directory that nobody else can write to
mkdir -p docs/site/rst
chmod og-w docs/site/rst
antsibull-docs collection --use-current --cleanup everything --fail-on-error --dest-dir docs/site/rst homelab.registry
sphinx-build -q -W --keep-going -b html -c docs/site docs/site/rst docs/site/build/html
printf 'docs/site/build/html/collections/homelab/registry/index.html\n'
