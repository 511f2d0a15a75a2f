# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx configuration of the rendered reference (tools/docs.sh). Needs no network."""

project = "homelab.registry"
copyright = "homelab.registry contributors"  # noqa: A001 - Sphinx's name for it
extensions = ["sphinx_antsibull_ext"]
html_theme = "alabaster"
# Labels that live on docs.ansible.com, which is not asked.
suppress_warnings = ["ref.ref"]
root_doc = "collections/homelab/registry/index"
# Pages about all collections, of which there is one here.
exclude_patterns = ["collections/*.rst", "collections/homelab/index.rst"]
