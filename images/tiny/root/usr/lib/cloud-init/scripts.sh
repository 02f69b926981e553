# shellcheck shell=sh disable=SC2154  # variables of cloud-init
# Commands of the user: bootcmd at every boot, before the network; user-data scripts and runcmd once.

run_bootcmd() {
    plan bootcmd | base64 -d >"$run/bootcmd"
    [ ! -s "$run/bootcmd" ] || run_script sh "$run/bootcmd"
}

# run_script PROGRAM [ARGUMENT]
run_script() {
    (cd / && "$@") >>"$output_log" 2>&1 </dev/null || log "scripts: $* ended with status $?"
}

# The commands wait on the disk: run_scripts may come in a later boot.
keep_scripts() {
    umask 077
    plan runcmd | base64 -d >"$instance/scripts/runcmd"
    [ -s "$instance/scripts/runcmd" ] || rm "$instance/scripts/runcmd"
    case "$(head -c 2 "$seed/user-data")" in
    '#!') cp "$seed/user-data" "$instance/scripts/user-data" && chmod 700 "$instance/scripts/user-data" ;;
    esac
}

# interpreter FILE: prints the program in its first line
interpreter() {
    sed -n '1s/^#! *\([^[:space:]]*\).*/\1/p' "$1"
}

run_scripts() {
    for script in "$instance"/scripts/*; do
        case "$script" in */runcmd | */user-data) ;; *) continue ;; esac
        # renamed first: what has been started is not started again
        mv "$script" "$script.started"
        log "scripts: ${script##*/}"
        if [ "${script##*/}" = runcmd ]; then
            run_script sh "$script.started"
        elif [ -x "$(interpreter "$script.started")" ]; then
            run_script "$script.started"
        else
            log "scripts: run by sh, there is no $(interpreter "$script.started")"
            run_script sh "$script.started"
        fi
    done
}
