# shellcheck shell=sh disable=SC2154  # variables of cloud-init
# Finds the NoCloud seed and makes the plan of this boot.

# A machine whose seed is taken away keeps its last one.
read_seed() {
    umask 077
    device=$(findfs LABEL=cidata 2>/dev/null || findfs LABEL=CIDATA 2>/dev/null) || {
        log "seed: none found, using the last one"
        return 0
    }
    log "seed: $device"
    mkdir -p "$run/mount"
    mount -t iso9660 -o ro "$device" "$run/mount" 2>/dev/null || mount -t vfat -o ro "$device" "$run/mount" || return
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
