# shellcheck shell=sh disable=SC2154  # variables of cloud-init
# write_files: after the users, so that an owner can be one of them.

# decode ENCODING: from stdin to stdout
decode() {
    case "$1" in
    b64 | base64) base64 -d ;;
    gz | gzip) gunzip ;;
    gz+b64 | gz+base64 | gzip+b64 | gzip+base64) base64 -d | gunzip ;;
    *) cat ;;
    esac
}

# write_file NUMBER PATH OWNER MODE APPEND ENCODING
write_file() {
    path=$2 owner=$3 mode=$4 append=$5 encoding=$6
    case "$path" in
    /*) ;;
    *)
        log "files: '$path' is no absolute path"
        return
        ;;
    esac
    case "$mode" in
    '' | *[!0-7]*)
        log "files: $path gets mode 0644, '$mode' is not octal"
        mode=0644
        ;;
    esac

    plan "content$US$1" | base64 -d >"$run/content"
    decode "$encoding" <"$run/content" >"$run/decoded" || {
        log "files: content of $path is not $encoding"
        return
    }
    mkdir -p "${path%/*}/"
    if [ "$append" = true ]; then
        cat "$run/decoded" >>"$path"
    else
        cat "$run/decoded" >"$path"
    fi || return
    chmod "$mode" "$path"
    chown -- "$owner" "$path"
    log "files: wrote $path"
}

write_files() {
    plan file >"$run/files"
    while IFS=$US read -r number path owner mode append encoding; do
        step write_file "$number" "$path" "$owner" "$mode" "$append" "$encoding"
    done <"$run/files"
    rm -f "$run/content" "$run/decoded"
}
