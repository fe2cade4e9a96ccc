# On the host: mounts, as its system makes them. Sourced.
#
# Linux has bind mounts and namespaces; what else there is has null mounts, seen by everybody.

OPSYS=$(uname -s)

# mount_table: prints where something is mounted, a line each, what was mounted last at the end;
# blanks and their like in names as \040. Fails if that cannot be told.
mount_table() {
    case $OPSYS in
    Linux) awk '{ print $2 }' /proc/self/mounts ;;
    *) mount | awk '$2 == "on" { print $3; some = 1 } END { exit !some }' ;;
    esac
}

# mounts_below DIR: prints those below it, as mount_table does; fails if that cannot be told.
mounts_below() {
    _mb=$(mount_table) || return 1
    printf '%s\n' "$_mb" | awk -v dir="${1%/}/" 'index($0, dir) == 1 && $0 != dir'
}

# plain NAME: sets PLAIN, the name without the escapes that mount_table prints.
plain() {
    PLAIN=$1
    case $1 in
    *\\*) PLAIN=$(printf '%b' "$(printf '%s\n' "$1" | sed 's/\\/\\0/g')") ;;
    esac
}

# unmount_below DIR: everything below it, innermost first; fails if something stays, or if that
# cannot be told.
unmount_below() {
    _ub=$(mounts_below "$1") || return 1
    [ -n "$_ub" ] || return 0
    printf '%s\n' "$_ub" | sort -r | while IFS= read -r _ub_one; do
        # What is in use stays with who uses it, and with nobody else.
        plain "$_ub_one"
        umount "$PLAIN" 2>/dev/null || umount -l "$PLAIN" || :
    done
    _ub=$(mounts_below "$1") && [ -z "$_ub" ]
}

# bind DIR TARGET: TARGET is DIR from now on, also for writing.
bind() {
    case $OPSYS in
    Linux) mount --bind "$1" "$2" ;;
    *) mount -t null "$1" "$2" ;;
    esac
}

# bind_read_only DIR TARGET: the same for reading, with what is mounted in it where that cannot be
# left out, which is so in a user namespace.
bind_read_only() {
    case $OPSYS in
    Linux)
        { mount --bind "$1" "$2" || mount --rbind "$1" "$2"; } 2>/dev/null && read_only "$2"
        ;;
    *) mount -t null -o ro "$1" "$2" ;;
    esac
}

# read_only DIR: what is mounted there, and below it, is for reading from now on. Linux.
read_only() {
    { printf '%s\n' "$1" && mounts_below "$1"; } | while IFS= read -r _ro; do
        # Other restrictions must be said again: without them it would be refused, or they go.
        _ro_flags=$(awk -v dir="$_ro" '
            $2 == dir {
                found = ""
                count = split($4, flag, ",")
                for (i = 1; i <= count; i++)
                    if (flag[i] ~ /^(nosuid|nodev|noexec)$/) found = found "," flag[i]
            }
            END { print found }' /proc/self/mounts)
        plain "$_ro"
        mount -o "remount,bind,ro$_ro_flags" none "$PLAIN" || exit 1
    done
}

# mount_memory SIZE DIR: an empty file system of so many bytes in memory.
mount_memory() {
    case $OPSYS in
    Linux) mount -t tmpfs -o "size=$1,mode=755" tmpfs "$2" ;;
    *) mount -t tmpfs -o "-s=$1,-m=755" tmpfs "$2" ;;
    esac
}
