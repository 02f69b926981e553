# shellcheck shell=sh disable=SC2154  # variables of cloud-init
# Users, passwords, keys and who may log in. All of it may run twice.

make_host_key() {
    mkdir -p /etc/dropbear
    # a disk copied from another machine must not bring that machine's identity
    rm -f /etc/dropbear/dropbear_*_host_key
    dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key
}

valid_name() {
    case "$1" in
    '' | [!A-Za-z_]* | *[!A-Za-z0-9_.-]*)
        log "users: '$1' is not a valid name"
        return 1
        ;;
    esac
}

# field NAME NUMBER: prints a field of the user's line in /etc/passwd
field() {
    name=$1 awk -F: -v "number=$2" '$1 == ENVIRON["name"] { print $number }' /etc/passwd
}

# next_id FILE: prints the first id from 1000 on that is above all others
next_id() {
    awk -F: '$3 >= 1000 && $3 < 60000 && $3 > max { max = $3 } END { print max ? max + 1 : 1000 }' "$1"
}

# ensure_group NAME [WANTED GID]
ensure_group() {
    ! grep -q "^$1:" /etc/group || return 0
    gid=${2:-$(next_id /etc/group)}
    ! grep -q ":x:$gid:" /etc/group || gid=$(next_id /etc/group)
    printf '%s:x:%s:\n' "$1" "$gid" >>/etc/group
}

# ensure_member USER GROUP
ensure_member() {
    ensure_group "$2"
    user=$1 group=$2 awk -F: -v OFS=: '
        $1 == ENVIRON["group"] && index("," $4 ",", "," ENVIRON["user"] ",") == 0 {
            $4 = $4 ($4 == "" ? "" : ",") ENVIRON["user"]
        }
        { print }' /etc/group >/etc/group.new && mv /etc/group.new /etc/group
}

# ensure_user NAME GECOS SHELL HOME UID
ensure_user() {
    [ -z "$(field "$1" 1)" ] || return 0
    name=$1 gecos=$2 shell=${3:-/bin/sh} home=${4:-/home/$1} uid=$5
    case "$uid" in '' | *[!0-9]*) uid=$(next_id /etc/passwd) ;; esac
    case "$home" in *:*) home=/home/$name ;; esac
    if [ ! -x "$shell" ]; then
        log "users: $name gets /bin/sh, there is no $shell"
        shell=/bin/sh
    fi
    ensure_group "$name" "$uid"
    gid=$(group=$name awk -F: '$1 == ENVIRON["group"] { print $3 }' /etc/group)
    printf '%s:x:%s:%s:%s:%s:%s\n' "$name" "$uid" "$gid" "$gecos" "$home" "$shell" >>/etc/passwd
    printf '%s:!:19000:0:99999:7:::\n' "$name" >>/etc/shadow
    mkdir -p "$home"
    chown "$uid:$gid" "$home"
    chmod 755 "$home"
    log "users: created $name ($uid)"
}

set_up_users() {
    plan user | while IFS=$US read -r name gecos shell home uid groups sudo; do
        valid_name "$name" || continue
        ensure_user "$name" "$gecos" "$shell" "$home" "$uid"
        for group in $(printf '%s' "$groups" | tr , ' '); do
            valid_name "$group" && ensure_member "$name" "$group"
        done
        [ "$sudo" = false ] || log "users: ignored sudo of $name, there is no sudo"
    done
}

set_passwords() {
    plan password | while IFS=$US read -r name type password; do
        flag=
        [ "$type" = text ] || flag=-e
        # shellcheck disable=SC2086  # no flag is no argument
        printf '%s:%s\n' "$name" "$password" | chpasswd $flag
    done
}

install_keys() {
    plan key | while IFS=$US read -r name key; do
        [ "$name" != root ] || ! flag disable_root || continue
        home=$(field "$name" 6)
        [ -n "$home" ] || continue
        file=$home/.ssh/authorized_keys
        mkdir -p "$home/.ssh"
        grep -qxF -e "$key" "$file" 2>/dev/null || printf '%s\n' "$key" >>"$file"
        chmod 700 "$home/.ssh"
        chmod 600 "$file"
        chown -R "$(field "$name" 3):$(field "$name" 4)" "$home/.ssh"
    done
}

# Marker files for /usr/lib/tiny/sshd.
set_login_rules() {
    rm -f /etc/dropbear/password-logins /etc/dropbear/no-root-logins
    ! flag ssh_pwauth || touch /etc/dropbear/password-logins
    ! flag disable_root || touch /etc/dropbear/no-root-logins
}
