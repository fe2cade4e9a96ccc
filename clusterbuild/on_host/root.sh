# On the host: makes the root directory that the sandboxes `overlay` and `chroot` show. Sourced.
#
# ROOM: the directory of the job, which it may write to. LAYER: what takes the job's changes,
# ROOM/layer. ROOT: its root, LAYER/root. COW_OPTIONS, MAPPED and WAY are set by `sandbox`.

# Directories that every job has for itself, whatever the host has there.
TEMPORARY='/tmp /var/tmp'

# make_root KIND: everything but the directories that are private to the job.
make_root() {
    LAYER=$ROOM/layer
    ROOT=$LAYER/root
    mkdir "$LAYER" || broken "could not make $LAYER"
    [ "$LAYER_SIZE" = 0 ] || mount_memory "$LAYER_SIZE" "$LAYER" ||
        broken "could not mount $LAYER_SIZE bytes of memory as $LAYER"
    mkdir "$ROOT" || broken "could not make $ROOT"
    # What is pivoted to must be a mount.
    [ "$WAY" = global ] || bind "$ROOT" "$ROOT" || broken "could not mount $ROOT"
    case $1 in
    overlay)
        cow_works || broken "no overlay file system is to be had here: $WHY"
        show / "$ROOT"
        ;;
    chroot) root_of_base ;;
    esac
    furnish
    show_needed "$1"
}

# --- what the job sees, and may write to as if it were its own

# cow DIR TARGET: TARGET shows DIR, without what is mounted below it; what is written there goes
# to a layer of its own. Fails with WHY.
cow() {
    _co=0
    while [ -e "$LAYER/$_co" ]; do
        _co=$((_co + 1))
    done
    _co=$LAYER/$_co
    # A name of ours in place of the directory's: mount(8) has its own ideas of commas and colons.
    mkdir "$_co" "$_co/upper" "$_co/work" && ln -s "$1" "$_co/lower" || {
        WHY="could not make $_co"
        return 1
    }
    # shellcheck disable=SC2046  # mode and owner
    set -- "$1" "$2" $(stat -c '%a %u:%g' "$1/" 2>/dev/null)
    chown "${4:-0:0}" "$_co/upper" 2>/dev/null || :
    chmod "${3:-755}" "$_co/upper"
    WHY=$(cd "$_co" && mount -t overlay overlay -o \
        "lowerdir=lower,upperdir=upper,workdir=work$COW_OPTIONS" "$2" 2>&1) && return
    WHY=${WHY%%"$NL"*}
    rm -rf "$_co"
    return 1
}

# cow_works: tried, not believed; fails with WHY.
cow_works() {
    mkdir -p "$LAYER/try/dir/sub" "$LAYER/tried" || {
        WHY="could not make $LAYER/try"
        return 1
    }
    cow "$LAYER/try" "$LAYER/tried" || {
        [ "$MAPPED" = no ] || WHY="$WHY (not as root, that needs Linux 5.11)"
        return 1
    }
    rm -r "$LAYER/tried/dir" && mkdir "$LAYER/tried/dir" && [ ! -e "$LAYER/tried/dir/sub" ] || {
        WHY="directories cannot be replaced in it: $LAYER lacks extended attributes"
        return 1
    }
    umount "$LAYER/tried"
}

# show DIR TARGET: TARGET shows DIR with everything that is mounted below it, and lets the job
# write where that can be, else read.
show() {
    if cow "$1" "$2"; then
        show_mounts "$1" "$2"
    elif [ -n "$(mounts_below "$1")" ]; then
        rebuild "$1" "$2"
    else
        bind_read_only "$1" "$2" || printf 'sandbox: %s cannot be shown: %s\n' "$1" "$WHY"
    fi
}

# own_way DIR OF: is DIR one that the job is not shown as a part of OF?
own_way() {
    case $1 in
    /proc | /proc/* | /dev | /dev/* | /sys | /sys/*) return 0 ;;
    "${ROOM%/*}"/*) return 0 ;;
    esac
    for _ow in $TEMPORARY; do
        case $1 in
        "$_ow" | "$_ow"/*)
            case $2 in
            "$_ow"/*) ;;
            *) return 0 ;;
            esac
            ;;
        esac
    done
    return 1
}

# show_mounts DIR TARGET: what is mounted below DIR.
show_mounts() {
    mounts_below "$1" | while IFS= read -r _sm; do
        plain "$_sm"
        _sm=$PLAIN
        [ -e "$_sm" ] && ! own_way "$_sm" "$1" || continue
        _sm_target=$2/${_sm#"${1%/}/"}
        [ -d "$_sm" ] && cow "$_sm" "$_sm_target" ||
            bind_read_only "$_sm" "$_sm_target" || printf 'sandbox: %s cannot be shown\n' "$_sm"
    done
}

# rebuild DIR TARGET: shows it entry by entry. In a user namespace nobody may look beneath what
# the host has mounted, and so no overlay can have a directory in which there is a mount.
rebuild() (
    for entry in "${1%/}"/* "${1%/}"/.[!.]* "${1%/}"/..?*; do
        target=$2/${entry##*/}
        if [ -L "$entry" ]; then
            cp -P "$entry" "$target"
        elif [ -d "$entry" ]; then
            mkdir "$target"
            own_way "$entry" "$1" || show "$entry" "$target"
        elif [ -f "$entry" ]; then
            : >"$target"
            bind_read_only "$entry" "$target" || printf 'sandbox: %s cannot be shown\n' "$entry"
        fi
    done
)

# root_of_base: the root is BASE_ROOT, with a layer for changes, or a copy of it.
root_of_base() {
    [ -d "$BASE_ROOT" ] || broken "there is no directory $BASE_ROOT to make the root of"
    if cow_works && cow "$BASE_ROOT" "$ROOT"; then
        return
    fi
    for _rb in "$BASE_ROOT"/* "$BASE_ROOT"/.[!.]* "$BASE_ROOT"/..?*; do
        case ${_rb##*/} in
        dev | proc | sys | '*' | '.[!.]*' | '..?*') continue ;;
        esac
        cp -RPp "$_rb" "$ROOT/" || broken "could not copy $_rb to $ROOT"
    done
}

# --- what every root has

# place DIR: sets PLACE, where the job will have DIR, which is made if need be. The root's own
# links are followed as they will be from within, and never out of it.
place() {
    PLACE=$(chroot "$ROOT" /bin/sh -c 'mkdir -p "$1" && cd "$1" && pwd -P' sh "$1") || return 1
    PLACE=$ROOT$PLACE
}

# furnish: /proc, /dev, /sys, and directories for what is temporary.
furnish() {
    place / || broken "/bin/sh cannot be run in $ROOT: is there a system in ${BASE_ROOT:-it}?"
    case $OPSYS in
    Linux) furnish_linux ;;
    *)
        place /dev && bind_read_only /dev "$PLACE" || broken "could not mount $ROOT/dev"
        ;;
    esac
    for _fu in $TEMPORARY; do
        _fu_own=$LAYER/temporary$(printf '%s' "$_fu" | tr / .)
        [ "$_fu" != /tmp ] || [ -z "$TMP" ] || _fu_own=$TMP
        mkdir -p "$_fu_own" && chmod 1777 "$_fu_own" && place "$_fu" &&
            bind "$_fu_own" "$PLACE" || broken "could not make a private $_fu"
    done
}

# furnish_linux
furnish_linux() {
    place /proc && { mount -t proc proc "$PLACE" 2>/dev/null || mount --rbind /proc "$PLACE"; } ||
        broken "could not mount $ROOT/proc"
    for _fl in bus fs irq sys sysrq-trigger; do
        # Settings of the whole system; who is not root has no part in them.
        [ "$MAPPED" = no ] && [ -e "$PLACE/$_fl" ] || continue
        bind_read_only "$PLACE/$_fl" "$PLACE/$_fl" || broken "could not protect $PLACE/$_fl"
    done
    place /sys && mount --rbind /sys "$PLACE" && read_only "$PLACE" ||
        broken "could not mount $ROOT/sys"
    place /dev && devices "$PLACE" || broken "could not mount $ROOT/dev"
    [ -z "$BASE_ROOT" ] || resolver
}

# resolver: names are looked up as the host does. Not everybody may write in every base.
resolver() {
    place /etc || return 0
    { rm -f "$PLACE/resolv.conf" && cat /etc/resolv.conf >"$PLACE/resolv.conf"; } 2>/dev/null ||
        bind_read_only /etc/resolv.conf "$PLACE/resolv.conf" 2>/dev/null ||
        printf 'sandbox: %s has no /etc/resolv.conf of the host\n' "$BASE_ROOT"
}

# devices DIR: those that harm nobody, terminals of the job's own, shared memory.
devices() {
    mount -t tmpfs -o size=1m,mode=755 tmpfs "$1" || return 1
    for _de in null zero full random urandom tty; do
        [ -e "/dev/$_de" ] || continue
        : >"$1/$_de" && mount --bind "/dev/$_de" "$1/$_de" || return 1
    done
    mkdir "$1/pts" "$1/shm" || return 1
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$1/pts" 2>/dev/null || :
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$1/shm" &&
        ln -s pts/ptmx "$1/ptmx" && ln -s /proc/self/fd "$1/fd" &&
        ln -s fd/0 "$1/stdin" && ln -s fd/1 "$1/stdout" && ln -s fd/2 "$1/stderr"
}

# show_needed KIND: the directories of --keep where KIND would not show them, and the room.
show_needed() {
    _sn_shown=$NL
    _sn_rest=$KEEP
    while [ -n "$_sn_rest" ]; do
        _sn=${_sn_rest%%"$NL"*}
        _sn_rest=${_sn_rest#*"$NL"}
        [ "$1" = chroot ] || own_way "$_sn/" / || continue
        case $_sn/ in
        "$ROOM"/*) continue ;;
        esac
        [ -d "$_sn" ] && ! shown_before "$_sn" || continue
        _sn_shown=$_sn_shown$_sn$NL
        place "$_sn" || broken "could not make $_sn in $ROOT"
        show "$_sn" "$PLACE"
    done
    place "$ROOM" && bind "$ROOM" "$PLACE" || broken "could not put $ROOM in place"
}

# shown_before DIR: is it part of a directory that is shown already?
shown_before() {
    _sb=$1
    while [ -n "$_sb" ]; do
        case $_sn_shown in
        *"$NL$_sb$NL"*) return 0 ;;
        esac
        _sb=${_sb%/*}
    done
    return 1
}

# enter: we are in the root from now on, and what we were in before is out of reach.
enter() {
    place /tmp && mkdir "$PLACE/.host" && cd "$ROOT" || broken "could not make $PLACE/.host"
    _en=${PLACE#"$ROOT"/}/.host
    pivot_root . "$_en" || broken "could not make $ROOT the root"
    cd /
    umount -l "/$_en" && rmdir "/$_en" ||
        broken "could not leave the host's root: is there umount in ${BASE_ROOT:-the root}?"
}
