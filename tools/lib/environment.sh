# Sourced by the scripts in tools/: finds Python and uv, makes and enters the project's environment.
# Expects the working directory to be the repository root.

# Threads that spin while they wait slow down a machine that other processes use too; on a quiet machine, passive waiting costs some 5 %.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

fail() {
    echo "error: $*" >&2
    exit 1
}

# Sets PYTHON to an interpreter of at least 3.11.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            PYTHON=$candidate
            return
        fi
    done
    fail "no Python 3.11 or newer found; install one, or set PYTHON to its path"
}

# Sets UV to an installed uv, or installs one into the bootstrap environment .bootstrap/.
find_uv() {
    if command -v uv >/dev/null 2>&1; then
        UV=$(command -v uv)
        return
    fi
    UV=.bootstrap/bin/uv
    [ -x "$UV" ] && return
    find_python
    echo "installing uv into .bootstrap/" >&2
    "$PYTHON" -m venv .bootstrap || fail "could not make a virtual environment (on Debian: apt-get install python3-venv)"
    .bootstrap/bin/python -m pip install --quiet --disable-pip-version-check uv ||
        fail "could not install uv with pip; see the message above"
}

# Makes .venv current with requirements.txt; instant when it already is.
ensure_environment() {
    local stamp=.venv/.requirements
    local wanted
    wanted="$(cat requirements.txt) backend=${TORCH_BACKEND:-default}"
    if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
        return
    fi
    find_python
    find_uv
    [ -x .venv/bin/python ] || "$UV" venv --quiet --python "$PYTHON" .venv
    echo "installing requirements.txt into .venv" >&2
    # Where Python may not keep compiled modules, every start of every command would compile them again.
    "$UV" pip install ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} --python .venv/bin/python ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} --requirements requirements.txt --overrides requirements-override.in
    printf '%s' "$wanted" >"$stamp"
}

# Lets Python find the project's modules where PYTHONSAFEPATH keeps the working directory out of its path. A clone that nobody may write
# into stays as it is.
add_modules() {
    local list
    for list in .venv/lib/python*/site-packages; do
        list+=/patchbench.pth
        [ "$(cat "$list" 2>/dev/null)" = "$PWD" ] || pwd 2>/dev/null >"$list" || true
    done
}

# Makes the environment and puts its programs first on PATH.
enter_environment() {
    ensure_environment
    add_modules
    PATH="$PWD/.venv/bin:$PATH"
    export PATH
}
