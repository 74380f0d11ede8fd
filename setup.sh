#!/usr/bin/env bash
# Makes .venv with everything the toolkit needs. Run it as often as you like: it is stamped, the second time costs nothing.
#   ./setup.sh          what the scripts need          ./setup.sh dev    tests, lint and types on top
#   ./setup.sh mpi      mpi4py on top (needs an MPI library)
#   ./setup.sh browser  what the tests of the report's page need on top, Chromium included (Debian, as root)
#   ./setup.sh slurm    what the tests of the job scripts need on top: Slurm and munge (Debian, as root)
#   ./setup.sh tiff     tifffile on top, which reads TIFF images
#   ./setup.sh export   onnx, onnxscript and onnxruntime on top, for export.py --format onnx
#   ./setup.sh docs     what the API pages need on top
#   ./setup.sh app      .venv-app instead, with Gradio, which needs an older Pillow: for the page sr_app.py
#   ./setup.sh app-test .venv-app with what the tests of that page need on top, Chromium included (Debian, as root)
# PYTHON      interpreter to build on                  (python3)
# TORCH_SPEC  what to install when it has no torch     (torch==2.13.0)
# LOCKED=1    exact versions of requirements.lock (of requirements-app.lock for .venv-app)
set -euo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
TORCH_SPEC=${TORCH_SPEC:-torch==2.13.0}
LOCKED=${LOCKED:-0}
GROUP=${1:-base}
case "$GROUP" in
  app|app-test) VENV=.venv-app LOCK=requirements-app.lock ;;
  *) VENV=.venv LOCK=requirements.lock ;;
esac

fail() { echo "setup.sh: $*" >&2; exit 1; }

case "$GROUP" in
  base) FILES=(requirements.txt) ;;
  dev)  FILES=(requirements.txt requirements-dev.txt) ;;
  mpi)  FILES=(requirements.txt requirements-mpi.txt) ;;
  tiff) FILES=(requirements.txt requirements-tiff.txt) ;;
  export) FILES=(requirements.txt requirements-export.txt) ;;
  browser) FILES=(requirements.txt requirements-dev.txt requirements-browser.txt) ;;
  slurm) FILES=(requirements.txt requirements-dev.txt) ;;
  docs) FILES=(requirements.txt requirements-docs.txt) ;;
  app) FILES=(requirements.txt requirements-app.txt) ;;
  app-test) FILES=(requirements.txt requirements-dev.txt requirements-browser.txt requirements-app.txt) ;;
  *)    fail "unknown group '$GROUP': give base, dev, mpi, tiff, export, browser, slurm, docs, app or app-test" ;;
esac

has_all() {
  local program
  for program in $1; do command -v "$program" >/dev/null || return 1; done
}
# need PROGRAMS PACKAGES: takes the packages of the distribution if a program is missing
need() {
  if has_all "$1"; then return; fi
  local remedy="install $2 (Debian: apt-get install $2)"
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then fail "not all of $1 here: $remedy"; fi
  echo "setup.sh: installing $2"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -qq -y --no-install-recommends $2 >/dev/null 2>&1 \
    || { apt-get update -qq && apt-get install -qq -y --no-install-recommends $2 >/dev/null; } \
    || fail "apt-get could not install $2: $remedy"
  has_all "$1" || fail "apt-get's packages do not bring all of $1: $remedy"
}
# Chromium's driver must be of the same build as the browser, so both come from the distribution
case "$GROUP" in
  browser|app-test) need "chromium chromedriver" "chromium chromium-driver fonts-dejavu-core" ;;
  slurm)   need "slurmctld slurmd munged sbatch script" "slurm-wlm munge bsdutils" ;;
esac
command -v "$PYTHON" >/dev/null || fail "no '$PYTHON' found; install python3 >= 3.10 or set PYTHON"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
  || fail "$("$PYTHON" --version) is too old; python >= 3.10 is needed (set PYTHON)"

STAMP="$VENV/stamp-$GROUP"
KEY=$( { cat setup.sh "$LOCK" "${FILES[@]}"; echo "$LOCKED $TORCH_SPEC"; "$PYTHON" -VV; } | cksum)
if [ -x $VENV/bin/python ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$KEY" ]; then exit 0; fi

has_torch() { "$1" - <<'PY' 2>/dev/null
import sys
import importlib.metadata as metadata
major, minor = (int(part) for part in metadata.version("torch").split(".")[:2])
sys.exit((major, minor) < (2, 10))
PY
}

if [ ! -x $VENV/bin/python ]; then
  SITE=()
  if has_torch "$PYTHON"; then
    echo "setup.sh: using the torch that $PYTHON already has"
    SITE=(--system-site-packages)
  fi
  if ! "$PYTHON" -m venv ${SITE[@]+"${SITE[@]}"} "$VENV" >/dev/null 2>&1; then
    # Debian splits ensurepip off; the interpreter's own pip can fill the environment instead
    rm -rf "$VENV"
    "$PYTHON" -m pip --version >/dev/null 2>&1 || fail "cannot make a virtual environment: install python3-venv (or python3-pip)"
    "$PYTHON" -m venv --without-pip ${SITE[@]+"${SITE[@]}"} "$VENV"
    "$PYTHON" -m pip --python $VENV/bin/python install -q pip
  fi
fi

PIP=($VENV/bin/python -m pip install --quiet --disable-pip-version-check)
if ! has_torch $VENV/bin/python; then
  echo "setup.sh: installing $TORCH_SPEC (a few minutes the first time)"
  "${PIP[@]}" "$TORCH_SPEC"
fi
has_torch $VENV/bin/python || fail "torch >= 2.10 is needed (older ones load hostile checkpoints, CVE-2026-24747); set TORCH_SPEC"
# torch stays what it is, whatever the other packages ask for
TORCH_VERSION=$($VENV/bin/python -c 'import importlib.metadata as m; print(m.version("torch"))')
CONSTRAINTS=$VENV/constraints.txt
echo "torch==$TORCH_VERSION" > "$CONSTRAINTS"
[ "$LOCKED" = 0 ] || cat "$LOCK" >> "$CONSTRAINTS"
echo "setup.sh: installing ${FILES[*]}"
"${PIP[@]}" -c "$CONSTRAINTS" $(printf -- '-r %s ' "${FILES[@]}")
echo "$KEY" > "$STAMP"
echo "setup.sh: ready ($VENV)"
