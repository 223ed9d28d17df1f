#!/usr/bin/env bash
# Brings everything that headrace needs into .venv, in stages with a progress line and a log each.
#
#   tools/setup.sh            what `make demo`, `make test` and the others call first
#
# 1. A stage that has succeeded is not run again until a file or setting that it reads changes.
# 2. A failed stage names its log, shows the end of it and leaves nothing running; the next call
#    goes on from there.
# 3. Standard output stays empty: progress goes to standard error.
#
# Settings (environment):
#   VENV                     where the environment goes                  [.venv]
#   PYTHON                   interpreter that makes it, 3.11 or newer    [python3.11, else python3]
#   PETSC_DIR, PETSC_ARCH    a PETSc of your own: nothing is compiled but mpi4py and petsc4py,
#                            against it and its MPI
#   PETSC_CONFIGURE_OPTIONS  for the PETSc that is compiled otherwise
#                            [--with-fc=0 --with-cxx=0 --with-x=0]
#                            Like the two above it counts when .venv is made, and is remembered.
#   PIP_*                    pip's own settings, such as PIP_EXTRA_INDEX_URL
set -euo pipefail
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES # of the make that called: not for PETSc's own

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="$(realpath -m "${VENV:-$ROOT/.venv}")"
STATE="$VENV/.setup" # stamps and logs: gone when the environment is removed
LOGS="$STATE/logs"
TOOLS="$ROOT/tools"
DEBIAN_PACKAGES=(gcc libc6-dev make python3-venv python3-dev libopenblas-dev)

say() { printf '%s\n' "$*" >&2; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "setup: no Python 3.11 or newer found (looked for: ${PYTHON:-python3.11 python3})." \
        "Install one, or name it: PYTHON=/path/to/python3.11 make setup"
    return 1
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

# The versions that were tested; on a GPU machine pip chooses the torch build for its driver.
constraints() {
    if has_gpu; then
        grep -v '^torch==' "$TOOLS/constraints.txt"
    else
        cat "$TOOLS/constraints.txt"
    fi
}

# Which PETSc the environment has: chosen when it is made, kept when a later shell says nothing.
settle_petsc() {
    local chosen="${PETSC_DIR:-}|${PETSC_DIR:+${PETSC_ARCH:-}}|${PETSC_CONFIGURE_OPTIONS:-}"
    local file="$STATE/settings" made
    made="$(cat "$file" 2>/dev/null || echo "$chosen")"
    if [[ "$chosen" != "||" && "$chosen" != "$made" ]]; then
        say "setup: $VENV was made with PETSC_DIR|PETSC_ARCH|PETSC_CONFIGURE_OPTIONS = $made" \
            "and they are now $chosen. Make it anew (make distclean), take another one" \
            "(VENV=...), or unset the three."
        return 1
    fi
    IFS='|' read -r PETSC_DIR PETSC_ARCH PETSC_CONFIGURE_OPTIONS <<<"$made"
    export PETSC_DIR PETSC_ARCH PETSC_CONFIGURE_OPTIONS
    [[ -n "$PETSC_DIR" ]] || unset PETSC_DIR PETSC_ARCH
    SETTINGS="$made"
}

pip_install() {
    "$VENV/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off \
        --constraint "$STATE/constraints.txt" "$@"
}

# --- stages: each is a function; what it prints goes to its log -----------------------------------

missing_parts() { # what the machine lacks, one word each
    local include program scratch
    command -v make >/dev/null || echo make
    "$BASE_PYTHON" -c 'import ensurepip, venv' 2>/dev/null || echo venv
    include="$("$BASE_PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')"
    [[ -f "$include/Python.h" ]] || echo Python.h
    scratch="$(mktemp -d)"
    program="$scratch/probe.c"
    echo '#include <stdlib.h>
int main(void) { return EXIT_SUCCESS; }' >"$program"
    if ! gcc "$program" -o "$scratch/probe"; then
        echo gcc
    fi
    if [[ -z "${PETSC_DIR:-}" && -z "${PETSC_CONFIGURE_OPTIONS:-}" ]] &&
        ! gcc "$program" -o "$scratch/probe" -llapack -lblas; then
        echo BLAS/LAPACK
    fi
    rm -r "$scratch"
}

stage_system() {
    local missing
    missing="$(missing_parts | paste -sd ' ')"
    [[ -n "$missing" ]] || return 0
    echo "missing: $missing"
    if [[ "$(id -u)" == 0 ]] && command -v apt-get; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update && apt-get install -y --no-install-recommends "${DEBIAN_PACKAGES[@]}" ||
            echo "apt-get failed"
        missing="$(missing_parts | paste -sd ' ')"
        [[ -n "$missing" ]] || return 0
    fi
    echo "This machine lacks: $missing. On Debian or Ubuntu type"
    echo "    sudo apt-get update && sudo apt-get install -y ${DEBIAN_PACKAGES[*]}"
    echo "elsewhere install a C compiler, make, BLAS/LAPACK and Python's headers and venv module;" \
        "then call make again."
    return 1
}

stage_venv() {
    "$BASE_PYTHON" -m venv "$VENV"
}

stage_build_tools() {
    local packages=(numpy cython setuptools wheel)
    # A site's PETSc brings its own MPI; a second one beside it could not talk to it.
    [[ -n "${PETSC_DIR:-}" ]] || packages+=(mpich mpi4py)
    pip_install "${packages[@]}"
}

# Wheels of the next two are never taken from pip's cache: they carry the paths and the options
# of the environment they were built in.
stage_petsc() {
    if [[ -n "${PETSC_DIR:-}" ]]; then
        build_for_site_petsc
    elif [[ -f "$STATE/petsc.stamp" ]] || ! petsc_works; then
        # PETSc's make waits while the load is above the core count; the pip beside it is enough
        local options="${PETSC_CONFIGURE_OPTIONS:---with-fc=0 --with-cxx=0 --with-x=0}"
        PETSC_CONFIGURE_OPTIONS="$options --with-make-load=$(($(nproc) * 4))" \
            pip_install --no-cache-dir --no-deps --force-reinstall petsc
        # -O0: the C file is generated glue; the numerics are in libpetsc (45 s in place of 250 s)
        CFLAGS="-O0 -g0" \
            pip_install --no-cache-dir --no-build-isolation --no-deps --force-reinstall petsc4py
    fi
    petsc_works
}

petsc_works() {
    "$VENV/bin/python" -c \
        'from mpi4py import MPI; from petsc4py import PETSc; print(PETSc.Sys.getVersion())'
}

build_for_site_petsc() {
    local conf="$PETSC_DIR/${PETSC_ARCH:-}/lib/petsc/conf/petscvariables"
    local header="$PETSC_DIR/include/petscversion.h" compiler version
    if [[ ! -f "$conf" || ! -f "$header" ]]; then
        echo "PETSC_DIR=$PETSC_DIR PETSC_ARCH=${PETSC_ARCH:-} is no configured PETSc: looked for" \
            "$conf and $header. Set both as for your other programs, or unset both to have one" \
            "compiled."
        return 1
    fi
    compiler="$(sed -n 's/^CC = //p' "$conf")"
    version="$(awk '/^#define PETSC_VERSION_(MAJOR|MINOR) / {print $3}' "$header" | paste -sd .)"
    echo "site PETSc $version, compiled with $compiler"
    # Without constraints: these two follow the site, not what was tested here.
    local site_pip=("$VENV/bin/python" -m pip install --no-input --no-cache-dir --no-deps
        --force-reinstall --no-build-isolation)
    MPICC="$compiler" "${site_pip[@]}" --no-binary mpi4py mpi4py
    CFLAGS="-O0 -g0" "${site_pip[@]}" "petsc4py==$version.*"
}

stage_packages() {
    pip_install -r "$TOOLS/requirements.txt" -r "$TOOLS/requirements-dev.txt"
}

stage_headrace() {
    pip_install --no-deps --no-build-isolation -e "$ROOT"
    "$VENV/bin/python" -m pip check || echo "(pip check is information only)"
}

# --- the machinery --------------------------------------------------------------------------------

# key STAGE FILE...: changes when the stage must run again
key() {
    local stage="$1"
    shift
    {
        echo "$stage $VENV $ROOT $SETTINGS"
        declare -f "stage_$stage"
        cat "$@" </dev/null
    } | sha256sum
}

# run STAGE "what it is" FILE...
run() {
    local stage="$1" what="$2" log="$LOGS/$1.log" stamp="$STATE/$1.stamp"
    local wanted status began=$SECONDS
    shift 2
    wanted="$(key "$stage" "$@")"
    [[ -f "$stamp" && "$(<"$stamp")" == "$wanted" ]] && return 0
    mkdir -p "$LOGS"
    say "setup: $what ..."
    set +e # not `if (...)`: bash ignores -e inside a condition
    (set -e; "stage_$stage") >"$log" 2>&1
    status=$?
    set -e
    if ((status != 0)); then
        # in one piece: the stage beside it may be talking too
        say "setup: $what: FAILED after $((SECONDS - began)) s; the end of $log:
$(tail -n 20 "$log" | sed 's/^/    | /')"
        return 1
    fi
    echo "$wanted" >"$stamp"
    say "setup: $what: done, $((SECONDS - began)) s"
}

stop_background() { # a stage in the background is a process group of its own
    local job
    for job in $(jobs -p); do kill -TERM -- "-$job" 2>/dev/null || true; done
}

main() {
    local all=("$TOOLS"/*.txt "$ROOT/pyproject.toml" "${BASH_SOURCE[0]}") wanted
    exec 9<"${BASH_SOURCE[0]}"
    flock 9 # two calls at once: the second waits, and then finds nothing to do
    settle_petsc
    # `command -v` and not nvidia-smi itself, which can take seconds
    wanted="$(key packages "${all[@]}") $(command -v nvidia-smi || echo cpu)"
    if [[ -x "$VENV/bin/headrace" && -f "$STATE/ready" && "$(<"$STATE/ready")" == "$wanted" ]]; then
        return 0
    fi
    BASE_PYTHON="$(find_python)"
    if [[ -d "$STATE" && "$(cat "$STATE/place" 2>/dev/null)" != "$VENV" ]]; then
        rm -rf "$VENV" # made elsewhere and moved: paths are written into it
    fi
    mkdir -p "$STATE"
    echo "$VENV" >"$STATE/place"
    echo "$SETTINGS" >"$STATE/settings"
    constraints >"$STATE/constraints.txt"
    # PETSc is built again when one of these changes, not for every other pin
    grep -E '^(Cython|mpi4py|mpich|numpy|petsc|petsc4py)==' "$STATE/constraints.txt" \
        >"$STATE/petsc-pins.txt"
    export PATH="$VENV/bin:$PATH" # PETSc's configure takes the mpicc it finds there

    run system "system packages"
    run venv "Python environment in $VENV"
    run build_tools "MPI and build tools" "$STATE/constraints.txt"
    trap stop_background EXIT
    set -m
    run petsc "PETSc and petsc4py (the longest; beside the next one)" "$STATE/petsc-pins.txt" &
    run packages "Python packages" "$TOOLS/requirements.txt" "$TOOLS/requirements-dev.txt" \
        "$STATE/constraints.txt" &
    wait -n
    wait -n
    set +m
    trap - EXIT
    run headrace "headrace itself" "$ROOT/pyproject.toml" "$TOOLS/requirements.txt"
    echo "$wanted" >"$STATE/ready"
    say "setup: ready after $SECONDS s (logs in $LOGS)"
}

main
