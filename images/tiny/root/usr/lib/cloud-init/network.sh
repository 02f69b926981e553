# shellcheck shell=sh disable=SC2154  # variables of cloud-init
# Applies network-config (version 2) at every boot: names, addresses, routes, name servers, DHCP.

# find_nic MAC NAME: prints the kernel's name of the interface
find_nic() {
    for nic in /sys/class/net/*; do
        if [ -n "$1" ]; then
            [ "$(cat "$nic/address")" = "$1" ] || continue
        else
            [ "${nic##*/}" = "$2" ] || continue
        fi
        echo "${nic##*/}"
        return
    done
    return 1
}

rename_nic() {
    ip link set "$1" down
    ip link set "$1" name "$2"
}

# Two steps, since two interfaces may swap their names; whoever else has a wanted name makes room.
set_names() {
    while IFS=$US read -r mac name wanted _; do
        nic=$(find_nic "$mac" "$name") || continue
        case "$wanted" in '' | "$nic" | *[!A-Za-z0-9_.-]*) continue ;; esac
        rename_nic "$nic" "+$wanted"
    done <"$run/nics"

    for nic in /sys/class/net/+*; do
        [ -e "$nic" ] || continue
        wanted=${nic##*/+}
        [ ! -e "/sys/class/net/$wanted" ] ||
            rename_nic "$wanted" "old$(cat "/sys/class/net/$wanted/ifindex")"
        rename_nic "+$wanted" "$wanted"
    done
}

# add_route NIC TO,VIA,METRIC
add_route() {
    to=${2%%,*} via=${2#*,} metric=${2##*,}
    via=${via%,*}
    set -- dev "$1"
    [ -z "$metric" ] || set -- "$@" metric "$metric"
    [ -z "$via" ] || set -- via "$via" "$@"
    case "$to$via" in *:*) family=-6 ;; *) family=-4 ;; esac
    # a gateway outside the subnet is reachable all the same
    ip "$family" route replace "$to" "$@" || ip "$family" route replace "$to" "$@" onlink
}

start_dhcp() {
    udhcpc -f -i "$1" -t 4 -T 1 -A 5 -O mtu -O staticroutes -x "hostname:$(hostname)" \
        -s /usr/lib/tiny/dhcp-event >/dev/null 2>&1 </dev/null &
}

# At most a second: DHCP goes on trying in the background.
wait_for_leases() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do
        waiting=
        for nic; do
            [ -e "/run/dhcp/$nic" ] || waiting=$nic
        done
        [ -n "$waiting" ] || return 0
        usleep 50000
    done
    log "network: no lease for $waiting yet"
}

set_up_network() {
    plan nic >"$run/nics"
    if [ ! -s "$run/nics" ]; then
        nic=$(find /sys/class/net -type l ! -name lo | sort | head -n 1)
        log "network: no configuration, DHCP on ${nic##*/}"
        printf "$US%s$US${US}true$US$US$US$US$US\n" "${nic##*/}" >"$run/nics"
    fi
    set_names

    mkdir -p /run/resolv
    dhcp_nics=
    while IFS=$US read -r mac name wanted dhcp4 mtu addresses routes servers search; do
        nic=$(find_nic "$mac" "${wanted:-$name}") || {
            log "network: no interface $mac $name"
            continue
        }
        [ -z "$mtu" ] || ip link set "$nic" mtu "$mtu"
        ip link set "$nic" up
        for address in $addresses; do
            ip addr add "$address" dev "$nic"
        done
        for route in $routes; do
            add_route "$nic" "$route"
        done
        {
            [ -z "$search" ] || echo "search $search"
            for server in $servers; do echo "nameserver $server"; done
        } >"/run/resolv/$nic"
        if [ "$dhcp4" = true ]; then
            start_dhcp "$nic"
            dhcp_nics="$dhcp_nics $nic"
        fi
        log "network: $nic ${mac:+($mac) }${addresses:-no address} dhcp4 $dhcp4"
    done <"$run/nics"

    cat /run/resolv/* >/etc/resolv.conf
    # shellcheck disable=SC2086  # a list of checked names
    wait_for_leases $dhcp_nics
}
