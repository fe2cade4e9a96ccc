# On the host: processes, told apart from others that have the same pid. Sourced.

# boot_id: sets BOOT, which is another after the host was rebooted; empty: unknown.
boot_id() {
    BOOT=
    { read -r BOOT </proc/sys/kernel/random/boot_id; } 2>/dev/null && return
    BOOT=$(sysctl -n kern.boottime 2>/dev/null | sed 1q | tr -cd 'A-Za-z0-9:,. ')
}

# start_time PID: sets START, when the process was started, and GROUP, its process group; fails
# if it is not there. One that has ended and was not waited for (a zombie) is not there.
start_time() {
    START='' GROUP=0
    if [ -e /proc/self/stat ]; then
        { read -r _st <"/proc/$1/stat"; } 2>/dev/null || return 1
        _st=${_st##*") "}
        # shellcheck disable=SC2086  # fields, from the third on
        set -- $_st
        case ${1:-Z} in
        [ZX]) return 1 ;;
        esac
        GROUP=$3
        shift 19
        START=$1
    else
        START=$(ps -o stat= -o lstart= -p "$1" 2>/dev/null | awk '$1 !~ /^Z/ { $1 = ""; print }')
        START=${START# }
        GROUP=$(ps -o pgid= -p "$1" 2>/dev/null | tr -cd 0-9)
    fi
    [ -n "$START" ]
}

# write_pid FILE PID: who runs, whole or not at all; fails if FILE is there already.
write_pid() {
    boot_id
    start_time "$2" || return 1
    {
        fact PID "$2"
        fact START "$START"
        fact BOOT "$BOOT"
        fact GROUP "${GROUP:-0}"
    } >"$1.$$" && ln "$1.$$" "$1" 2>/dev/null
    _wr_status=$?
    rm -f "$1.$$"
    return $_wr_status
}

# read_pid FILE: sets PID, PID_START, PID_BOOT and PID_GROUP; fails if there is no such file.
read_pid() {
    PID=0 PID_START='' PID_BOOT='' PID_GROUP=0
    [ -f "$1" ] && [ ! -L "$1" ] || return 1
    while IFS= read -r _rp; do
        unquote "${_rp#*=}" || continue
        case $_rp in
        PID=*) PID=$VALUE ;;
        START=*) PID_START=$VALUE ;;
        BOOT=*) PID_BOOT=$VALUE ;;
        GROUP=*) PID_GROUP=$VALUE ;;
        esac
    done 2>/dev/null <"$1"
    valid_number "$PID" && valid_number "$PID_GROUP" && [ "$PID" -gt 1 ]
}

# alive FILE: does the process that the file names still run? Needs boot_id called before.
alive() {
    read_pid "$1" || return 1
    if [ -e /proc/self/stat ] && [ "$PID_BOOT" != "$BOOT" ]; then
        return 1
    fi
    start_time "$PID" && [ "$START" = "$PID_START" ]
}

# processes: prints "pid parent group" of every process there is, without needing ps on Linux.
processes() {
    if [ -e /proc/self/stat ]; then
        for _pr in /proc/[0-9]*/stat; do
            { read -r _pr_line <"$_pr"; } 2>/dev/null || continue
            _pr_pid=${_pr#/proc/}
            _pr_rest=${_pr_line##*") "}
            case $_pr_rest in
            [ZX]*) continue ;;
            esac
            _pr_rest=${_pr_rest#* }
            _pr_parent=${_pr_rest%% *}
            _pr_rest=${_pr_rest#* }
            echo "${_pr_pid%/stat} $_pr_parent ${_pr_rest%% *}"
        done
    else
        { ps -A -o pid= -o ppid= -o pgid= -o stat= || ps -A -o pid= -o ppid= -o pgid=; } 2>/dev/null |
            awk '$4 !~ /^Z/ { print $1, $2, $3 }'
    fi
}

# family PID GROUP: sets FAMILY to the process and its descendants; with GROUP also the members
# of that process group; with what is in KIN (pids seen before) also those; and descendants of
# all of them. We ourselves are never in it.
family() {
    FAMILY=$(processes | awk -v root="$1" -v group="$2" -v kin="${KIN:-}" -v own="$$" '
        BEGIN { count = split(kin, seen); for (i = 1; i <= count; i++) known[seen[i]] = 1 }
        {
            parent[$1] = $2
            if ($1 == root || ($1 in known) || (group > 1 && $3 == group)) member[$1] = 1
        }
        END {
            for (grown = 1; grown;) {
                grown = 0
                for (pid in parent)
                    if (!(pid in member) && pid != own && (parent[pid] in member)) {
                        member[pid] = 1
                        grown = 1
                    }
            }
            for (pid in member)
                if (pid > 1 && pid != own) printf "%s ", pid
        }')
}

# end_family PID GROUP: SIGTERM, then after GRACE seconds SIGKILL, until nothing is left;
# fails if something is. GROUP is the process group it leads, 0 where it leads none.
end_family() {
    KIN=
    family "$1" "$2"
    [ -n "$FAMILY" ] || return 0
    KIN=$FAMILY
    # shellcheck disable=SC2086  # a list of numbers
    kill -TERM $FAMILY 2>/dev/null
    within "$GRACE" family_gone "$1" "$2" || within "$GRACE" family_killed "$1" "$2"
}

# family_gone PID GROUP
family_gone() {
    family "$1" "$2"
    KIN="$KIN $FAMILY"
    [ -z "$FAMILY" ]
}

# family_killed PID GROUP: kills what there is; succeeds when there is nothing left.
family_killed() {
    family_gone "$1" "$2" && return 0
    # shellcheck disable=SC2086
    kill -KILL $FAMILY 2>/dev/null
    return 1
}

# end_recorded FILE: ends the process that FILE names, and what belongs to it; also what is left
# of its process group when it is dead itself. Never one that only has got the same pid.
end_recorded() {
    boot_id
    if alive "$1"; then
        _er=$PID
    else
        [ "$PID" -gt 1 ] || return 0
        [ ! -e /proc/self/stat ] || [ "$PID_BOOT" = "$BOOT" ] || return 0
        ! start_time "$PID" || return 0
        _er=0
    fi
    [ "$PID_GROUP" = "$PID" ] || PID_GROUP=0
    end_family "$_er" "$PID_GROUP"
}

# apart COMMAND...: becomes it, in a session and process group of its own where the host can.
# The shell lets its background commands ignore SIGINT and SIGQUIT, which builds must not inherit.
apart() {
    trap - INT QUIT
    if have setsid; then
        set -- setsid "$@"
    else
        trap '' HUP
    fi
    if env --default-signal=INT,QUIT true 2>/dev/null; then
        set -- env --default-signal=INT,QUIT "$@"
    fi
    exec "$@"
}

# exit_status STATUS: sets STATUS to it as most shells say it: 128+n for signal n.
exit_status() {
    STATUS=$1
    [ "$STATUS" -le 384 ] || STATUS=$((STATUS - 256))
}
