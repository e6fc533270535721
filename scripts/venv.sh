#!/usr/bin/env bash
# Makes a Python environment from a requirements file, once: scripts/venv.sh FOLDER REQUIREMENTS
# Works without Debian's python3-venv, since the host's pip installs into it. Done again when the file changes, or the
# folder's place: the scripts that pip writes name their interpreter by its absolute path, and a path through a link in
# a work tree would end with that work tree.
set -euo pipefail
requirements=$2
mkdir -p "$1"
folder=$(realpath "$1")
mark="$folder/.installed"
wanted=$(echo "# $folder"; cat "$requirements")
[ -e "$mark" ] && [ "$wanted" = "$(cat "$mark")" ] && exit 0
rm -rf "$folder"
python3 -m venv --without-pip "$folder"
python3 -m pip --python "$folder/bin/python" install --quiet --disable-pip-version-check -r "$requirements"
echo "$wanted" > "$mark"
