# On the host: what all scripts of this directory share. Sourced, never run.
#
# POSIX sh without `local`: a function's own variables begin with an underscore
# and its name's first letters; what it answers is in a variable in capitals.
# No arithmetic on bytes or times since 1970: some shells count in 32 bits.

set -u
LC_ALL=C
umask 022
: "${CLUSTERBUILD_SH:=sh}"
: "${CLUSTERBUILD_PATH:=$PATH:/usr/bin:/bin:/usr/sbin:/sbin}"
PATH=$CLUSTERBUILD_PATH
export LC_ALL PATH CLUSTERBUILD_SH CLUSTERBUILD_PATH
unset CDPATH ENV 2>/dev/null || :

NL='
'
# Exit statuses, of sysexits(3).
EX_USAGE=64 EX_DATAERR=65 EX_NOINPUT=66 EX_OSERR=71 EX_CANTCREAT=73 EX_IOERR=74
EX_TEMPFAIL=75
# The sandbox itself failed, not what was run in it.
EX_SANDBOX=125
# Seconds that processes get between SIGTERM and SIGKILL.
GRACE=5

# die STATUS MESSAGE: ends the script.
die() {
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    exit "$1"
}

# have TOOL: is there such a command?
have() {
    command -v "$1" >/dev/null 2>&1
}

# valid_attempt NAME
valid_attempt() {
    case $1 in
    '' | *[!A-Za-z0-9_-]*) return 1 ;;
    esac
    [ "${#1}" -le 64 ]
}

# valid_path PATH: absolute, and nothing in it that make or PATH cannot take.
valid_path() {
    case $1 in
    *[!A-Za-z0-9_./+@,~-]* | *//* | */./* | */../* | */. | */.. | /) return 1 ;;
    /*) return 0 ;;
    esac
    return 1
}

# valid_number TEXT: a whole number that every shell can count with.
valid_number() {
    case $1 in
    '' | *[!0-9]*) return 1 ;;
    esac
    [ "${#1}" -le 9 ]
}

# use_base BASE: takes it as $base, an existing directory.
use_base() {
    valid_path "$1" || die $EX_USAGE "not a usable base directory: '$1' (absolute, and only letters, digits and ./+@,~_-)"
    [ -d "$1" ] || die $EX_NOINPUT "there is no directory $1"
    base=$1
}

# use_attempt NAME: takes it as $attempt, and $job as its directory.
use_attempt() {
    valid_attempt "$1" || die $EX_USAGE "not the name of an attempt: '$1'"
    attempt=$1
    job=$base/jobs/$attempt
}

# nap [SECONDS]: sleeps for a fraction of a second where sleep can, else for a whole one.
nap() {
    if [ -z "${_nap:-}" ]; then
        _nap=whole
        ! sleep 0.01 2>/dev/null || _nap=fraction
    fi
    if [ $_nap = whole ]; then
        sleep 1
    else
        sleep "${1:-0.05}"
    fi
}

# within SECONDS COMMAND...: tries it until it succeeds; fails when time is up.
within() {
    seconds
    _wi_end=$((SECONDS_NOW + $1))
    shift
    until "$@"; do
        seconds
        [ "$SECONDS_NOW" -le "$_wi_end" ] || return 1
        nap
    done
}

# epoch: sets EPOCH, seconds since 1970.
epoch() {
    EPOCH=$(date +%s)
    case $EPOCH in
    '' | *[!0-9]*) EPOCH=$(awk 'BEGIN { srand(); print srand() }') ;;
    esac
}

# uptime_clock: sets UPTIME, a clock that nobody sets: seconds, with a fraction where it can.
uptime_clock() {
    if { read -r UPTIME _ </proc/uptime; } 2>/dev/null; then
        return
    fi
    epoch
    UPTIME=$EPOCH
}

# seconds: sets SECONDS_NOW, whole seconds of the same clock, small enough to count with.
seconds() {
    uptime_clock
    SECONDS_NOW=${UPTIME%%.*}
    while [ "${#SECONDS_NOW}" -gt 8 ]; do
        SECONDS_NOW=${SECONDS_NOW#?}
    done
    while :; do
        case $SECONDS_NOW in
        0?*) SECONDS_NOW=${SECONDS_NOW#0} ;;
        *) break ;;
        esac
    done
}

# quote VALUE: sets QUOTED, the value as one word of sh in single quotes.
quote() {
    QUOTED=
    _qu_rest=$1
    while :; do
        case $_qu_rest in
        *"'"*)
            QUOTED="$QUOTED${_qu_rest%%"'"*}'\\''"
            _qu_rest=${_qu_rest#*"'"}
            ;;
        *) break ;;
        esac
    done
    QUOTED="'$QUOTED$_qu_rest'"
}

# unquote WORD: sets VALUE to what is within the quotes; fails unless `quote` made it.
unquote() {
    VALUE=
    case $1 in
    "'"*"'") _un_rest=${1#"'"} ;;
    *) return 1 ;;
    esac
    [ -n "$_un_rest" ] || return 1
    _un_rest=${_un_rest%"'"}
    while :; do
        case $_un_rest in
        *"'"*)
            VALUE="$VALUE${_un_rest%%"'"*}'"
            _un_rest=${_un_rest#*"'"}
            case $_un_rest in
            "\\''"*) _un_rest=${_un_rest#"\\''"} ;;
            *) return 1 ;;
            esac
            ;;
        *) break ;;
        esac
    done
    VALUE=$VALUE$_un_rest
}

# fact NAME VALUE: prints NAME='value'; what cannot be printed in VALUE is left out.
fact() {
    case $2 in
    *[![:print:]]*) quote "$(printf '%s' "$2" | tr -cd '\040-\176')" ;;
    *) quote "$2" ;;
    esac
    printf '%s=%s\n' "$1" "$QUOTED"
}

# file_size FILE: sets SIZE, its bytes, as text; fails if it is no plain file.
file_size() {
    SIZE=
    [ -f "$1" ] && [ ! -L "$1" ] || return 1
    _fi=$(ls -ln -- "$1" 2>/dev/null) || return 1
    # shellcheck disable=SC2086  # fields
    set -- $_fi
    SIZE=${5:-}
    [ -n "$SIZE" ]
}

# larger A B: compares sizes of any length.
larger() {
    [ "${#1}" -le "${#2}" ] || return 0
    [ "${#1}" -eq "${#2}" ] || return 1
    if [ "${#1}" -le 9 ]; then
        [ "$1" -gt "$2" ]
    else
        awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > b) }'
    fi
}

# release_slots: gives back every slot that $attempt has claimed.
release_slots() {
    for _re in "$base"/slots/*.holder; do
        _re_holder=
        { read -r _re_holder <"$_re"; } 2>/dev/null || continue
        [ "$_re_holder" != "$attempt" ] || rm -f "$_re"
    done
}

# held_slot: sets SLOT to the number of the slot that $attempt has claimed; fails if none.
held_slot() {
    for _he in "$base"/slots/*.holder; do
        _he_holder=
        { read -r _he_holder <"$_he"; } 2>/dev/null || continue
        if [ "$_he_holder" = "$attempt" ]; then
            SLOT=${_he##*/}
            SLOT=${SLOT%.holder}
            return 0
        fi
    done
    SLOT=0
    return 1
}

# empty_directory DIR: removes all it holds, also what nobody may write to or change. Nothing may
# be mounted there.
empty_directory() {
    [ -d "$1" ] && [ ! -L "$1" ] || return 0
    for _em in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        [ -e "$_em" ] || [ -L "$_em" ] || continue
        rm -rf "$_em" 2>/dev/null && continue
        ! have chattr || chattr -R -f -i -a "$_em" >/dev/null 2>&1
        ! have chflags || chflags -R 0 "$_em" 2>/dev/null
        # One by one, so that each can be entered then.
        find "$_em" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
        rm -rf "$_em" || return 1
    done
}

# sync_file FILE: to the disk, where that can be asked for a single file.
sync_file() {
    if [ -e /proc/self/stat ]; then
        sync "$1" 2>/dev/null || :
    fi
}
