#!/usr/bin/env bash
# Renews .sqlx, or compares it with the sources (`--check`); see sqlx.py beside this file.
set -euo pipefail
exec python3 "$(dirname "$0")/sqlx.py" "$@"
