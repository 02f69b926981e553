# shellcheck shell=bash
# What scripts/up and scripts/test do before Python can take over: packages and the virtual environment.
# Sourced; needs $checkout, and `set -euo pipefail`.

started=${TERRACE_UP_STARTED:-$(date +%s.%N)}
var=${TERRACE_VAR:-$checkout/var}
setup_log=$var/log/up.log
verbose=${verbose:-}

say() { printf '[%5.1f s] %s\n' "$(awk -v s="$started" -v n="$(date +%s.%N)" 'BEGIN { print n - s }')" "$*" >&2; }

die() {
    printf '\nError: %s\n' "$*" >&2
    exit 1
}

# as_root ARGUMENTS...: runs the calling script again with sudo, unless this is root already
as_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null || die "this needs root, and there is no sudo on this machine"
    local name kept=()
    for name in $(compgen -e); do
        case $name in TERRACE_* | PIP_* | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | SSL_CERT_FILE)
            kept+=("$name=${!name}") ;;
        esac
    done
    exec sudo -- env "${kept[@]}" "$0" "$@"
}

# quietly WHAT COMMAND...: its output goes to the log, and to the terminal when it fails (always with -v)
quietly() {
    local what=$1
    shift
    mkdir -p "$(dirname "$setup_log")"
    if [ -n "$verbose" ]; then
        "$@" 2>&1 | tee -a "$setup_log" >&2 && return 0
    elif "$@" >>"$setup_log" 2>&1; then
        return 0
    fi
    printf '\nError: %s failed. The end of %s:\n' "$what" "$setup_log" >&2
    tail -n 20 "$setup_log" | sed 's/^/    /' >&2
    return 1
}

has_python() { /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# A setting that can't be used is told before minutes of work; on a machine without Python, after them.
check_settings() { ! has_python || PYTHONPATH=$checkout /usr/bin/python3 -m terrace.stack check; }

# wanted_packages [SECTION...]: those that are always needed, and those of the sections
wanted_packages() {
    awk -v sections=" $* " '
        { sub(/#.*/, "") }
        /^\[/ { gsub(/[][]/, ""); skip = !index(sections, " " $1 " "); next }
        NF && !skip { print $1 }' "$checkout/scripts/packages.debian"
}

missing_packages() {
    local installed
    # shellcheck disable=SC2046 # one word for each package
    installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $(wanted_packages "$@") 2>/dev/null |
        sed -n 's/^installed //p' | sort -u || true)
    comm -23 <(wanted_packages "$@" | sort -u) <(printf '%s\n' "$installed")
}

policy=/usr/sbin/policy-rc.d
saved_policy=$policy.saved-by-terrace

# While policy-rc.d says 101, maintainer scripts start nothing (invoke-rc.d(8)).
forbid_services() {
    # one of ours is what an interrupted installation left
    if [ -e "$policy" ] && ! grep -q '^# terrace$' "$policy"; then mv "$policy" "$saved_policy"; fi
    printf '#!/bin/sh\n# terrace\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

allow_services() {
    rm -f "$policy"
    if [ -e "$saved_policy" ]; then mv "$saved_policy" "$policy"; fi
}

service_packages() {
    dpkg-query -W -f='${db:Status-Status} ${Package}\n' | sed -n 's/^installed \(\(postgresql\|redis\|haproxy\|libvirt\|ceph\|smartmontools\|uuid-runtime\|lvm2\).*\)/\1/p' | sort -u
}

# A service that came with our packages shall not start at the next boot either.
disable_services() {
    if [ $# -eq 0 ] || ! command -v systemctl >/dev/null; then return 0; fi
    local unit
    dpkg -L "$@" 2>/dev/null | sed -n 's,^\(/usr\)\?/lib/systemd/system/\([^/@]*\.\(service\|socket\|timer\)\)$,\2,p' |
        while read -r unit; do systemctl disable "$unit" >/dev/null 2>&1 || true; done
}

install_packages() {
    local before
    before=$(service_packages)
    # trap and not a last line: an interrupted installation must leave the machine's own policy too
    trap allow_services EXIT
    forbid_services
    apt-get update -q &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q -o Dpkg::Use-Pty=0 --no-install-recommends "$@" || return 1
    allow_services
    trap - EXIT
    # shellcheck disable=SC2046 # one word for each package
    disable_services $(comm -13 <(printf '%s\n' "$before") <(service_packages))
}

# ensure_packages [SECTION...]
ensure_packages() {
    command -v apt-get >/dev/null && command -v dpkg-query >/dev/null ||
        die "Terrace runs on Debian 12, Debian 13 and Ubuntu 24.04; this machine has no apt"
    [ "$(dpkg --print-architecture)" = amd64 ] || die "Terrace needs an amd64 machine"
    local missing
    missing=$(missing_packages "$@")
    if [ -z "$missing" ]; then
        say "packages: all installed"
        return 0
    fi
    say "packages: installing $(wc -l <<<"$missing") with what they need"
    # two checkouts at a time would disagree about policy-rc.d
    mkdir -p /run/lock
    exec 8>/run/lock/terrace-packages
    flock 8
    # shellcheck disable=SC2086 # one word for each package
    quietly "installing packages" install_packages $missing
    exec 8>&-
    say "packages: installed"
}

# environment_stamp LOCK...: a name for what the virtual environment should hold
environment_stamp() {
    {
        /usr/bin/python3 --version
        printf '%s\n' "$checkout" "$*"
        (cd "$checkout" && sha256sum pyproject.toml "$@")
    } | sha256sum | cut -d' ' -f1
}

# ensure_environment STAMP LOCK...: .venv with exactly the locked packages, and this checkout
ensure_environment() {
    local stamp=$checkout/.venv/.$1 environment=$checkout/.venv wanted
    shift
    has_python ||
        die "Terrace needs Python 3.11 or newer; /usr/bin/python3 is $(/usr/bin/python3 --version)"
    wanted=$(environment_stamp "$@")
    if [ -x "$environment/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        say "virtual environment: up to date"
        return 0
    fi
    say "virtual environment: installing the locked packages"
    quietly "making the virtual environment" install_environment "$environment" "$@"
    printf '%s\n' "$wanted" >"$stamp"
    say "virtual environment: ready"
}

# The mark says that an installation was interrupted: such an environment is made anew. A whole one of
# another kind (with the development tools, without them) is only added to.
install_environment() {
    local environment=$1 lock
    shift
    local mark=$environment/.unfinished
    if [ -e "$mark" ] || ! "$environment/bin/python" -m pip --version; then
        /usr/bin/python3 -m venv --clear "$environment" || return 1
    fi
    : >"$mark"
    local pip=("$environment/bin/python" -m pip install --disable-pip-version-check --no-build-isolation)
    for lock in "$@"; do
        "${pip[@]}" --require-hashes -r "$checkout/$lock" || return 1
    done
    "${pip[@]}" --no-deps -e "$checkout" || return 1
    rm "$mark"
}

# Ceph's bindings for Python come with Debian's packages only, compiled for Debian's Python: the virtual
# environment gets links to these two alone, through a folder that it looks into.
ensure_ceph_bindings() {
    local environment=$checkout/.venv name suffix binding packages
    local folder=$environment/lib/ceph-bindings
    suffix=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    mkdir -p "$folder"
    for name in rados rbd; do
        binding=/usr/lib/python3/dist-packages/$name$suffix
        [ -e "$binding" ] || die "$(missing_binding "$name" "$suffix")"
        [ "$(readlink "$folder/$name$suffix")" = "$binding" ] || ln -sfn "$binding" "$folder/$name$suffix"
    done
    [ "$(cat "$packages/ceph-bindings.pth" 2>/dev/null)" = "$folder" ] ||
        printf '%s\n' "$folder" >"$packages/ceph-bindings.pth"
    quietly "importing Ceph's bindings" "$environment/bin/python" -c 'import rados, rbd'
}

missing_binding() {
    local found
    found=$(cd /usr/lib/python3/dist-packages 2>/dev/null && compgen -G "$1.cpython-*.so" | tr '\n' ' ' || true)
    if [ -n "$found" ]; then
        printf "the package python3-%s is made for another Python: it has %s, and .venv's needs %s" "$1" "${found% }" "$1$2"
    else
        printf "Ceph's binding for Python is missing: install the package python3-%s" "$1"
    fi
}
