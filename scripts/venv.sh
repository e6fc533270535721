#!/usr/bin/env bash
# Makes a Python environment from a requirements file, once: scripts/venv.sh FOLDER REQUIREMENTS
# Works without Debian's python3-venv, since the host's pip installs into it. Done again only when the file changes.
set -euo pipefail
folder=$1 requirements=$2
mark="$folder/.installed"
cmp -s "$requirements" "$mark" && exit 0
rm -rf "$folder"
python3 -m venv --without-pip "$folder"
python3 -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check -r "$requirements"
cp "$requirements" "$mark"
