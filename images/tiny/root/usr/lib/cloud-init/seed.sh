# shellcheck shell=sh disable=SC2154  # variables of cloud-init
# Finds the NoCloud seed and makes the plan of this boot.

# find_seed: prints the device that holds an ISO 9660 volume called cidata. busybox's findfs won't do,
# it overlooks devices under 68 KiB. The label stands at byte 40 of sector 16 (ECMA-119, 8.4).
find_seed() {
    for device in /sys/class/block/*; do
        device=/dev/${device##*/}
        case "$(dd if="$device" bs=2048 skip=16 count=1 2>/dev/null | head -c 46 | tail -c 6)" in
        cidata | CIDATA)
            echo "$device"
            return
            ;;
        esac
    done
    return 1
}

# A machine whose seed is taken away keeps its last one.
read_seed() {
    umask 077
    device=$(find_seed) || {
        log "seed: none found, using the last one"
        return 0
    }
    log "seed: $device"
    mkdir -p "$run/mount"
    mount -t iso9660 -o ro "$device" "$run/mount" || return
    for name in meta-data network-config user-data; do
        if [ ! -f "$run/mount/$name" ]; then
            rm -f "$seed/$name"
        elif ! cmp -s "$run/mount/$name" "$seed/$name"; then
            cp "$run/mount/$name" "$seed/$name"
        fi
    done
    umount "$run/mount"
}

make_plan() {
    umask 077
    for name in meta-data network-config user-data; do
        [ -e "$seed/$name" ] || : >"$seed/$name"
    done
    jq -nr -f /usr/lib/cloud-init/plan.jq --rawfile meta "$seed/meta-data" \
        --rawfile network "$seed/network-config" --rawfile user "$seed/user-data" >"$run/plan"
    plan log | while IFS= read -r complaint; do log "seed: $complaint"; done
}
