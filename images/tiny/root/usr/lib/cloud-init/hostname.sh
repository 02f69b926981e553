# shellcheck shell=sh disable=SC2154  # variables of cloud-init
set_hostname() {
    record=$(plan hostname)
    name=${record%%"$US"*} fqdn=${record#*"$US"}
    case "$name" in
    *[!A-Za-z0-9-]*)
        log "hostname: '$name' is not valid"
        name=
        ;;
    esac
    case "$fqdn" in *[!A-Za-z0-9.-]*) fqdn= ;; esac

    if [ -n "$name" ]; then
        hostname "$name"
        printf '%s\n' "$name" >/etc/hostname
    fi
    flag keep_etc_hosts || cat >/etc/hosts <<END
127.0.0.1 localhost
127.0.1.1 $fqdn $(hostname)
::1 localhost
END
}
