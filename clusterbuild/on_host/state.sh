# On the host: the state of a job in one line. Sourced by `look` and `watch`.

# job_state DIR: sets STATE to "ATTEMPT LIFE STAGE SINCE PID SLOT REASON" ("-" for nothing),
# without starting a process where that can be helped; fails if DIR is not a job's.
# LIFE: starting, running, ended, gone. SINCE: when the stage began, seconds since 1970.
job_state() {
    _js=${1##*/}
    valid_attempt "$_js" && [ -d "$1" ] && [ ! -L "$1" ] || return 1
    _js_stage=- _js_since=0 _js_slot=0 _js_reason=-
    { read -r _js_stage _js_since <"$1/stage"; } 2>/dev/null || _js_stage=- _js_since=0
    { read -r _js_slot <"$1/slot"; } 2>/dev/null || _js_slot=0
    case $_js_stage in
    '' | *[!a-z-]*) _js_stage=- ;;
    esac
    case $_js_since:$_js_slot in
    *[!0-9:]* | :* | *:) _js_since=0 _js_slot=0 ;;
    esac
    PID=0
    if [ -f "$1/result" ]; then
        _js_life=ended
    elif [ ! -e "$1/pid" ]; then
        _js_life=starting
    elif alive "$1/pid"; then
        _js_life=running
    else
        # It may have written its result after we looked for it.
        _js_life=gone _js_reason=died
        [ -z "$PID_BOOT" ] || [ -z "$BOOT" ] || [ "$PID_BOOT" = "$BOOT" ] || _js_reason=rebooted
        [ ! -f "$1/result" ] || _js_life=ended _js_reason=-
    fi
    STATE="$_js $_js_life $_js_stage $_js_since $PID $_js_slot $_js_reason"
}

# log_sizes: prints "ATTEMPT BYTES" for each job that has logs. One process looks at them all.
log_sizes() (
    cd "$base/jobs" 2>/dev/null || exit 0
    # The first directory is there so that ls prints the names of all.
    ls -ln . */log 2>/dev/null | awk '
        /^[A-Za-z0-9_-]+\/log:$/ { attempt = substr($0, 1, length($0) - 5); next }
        /^\.:$/ { attempt = ""; next }
        /^-/ && attempt != "" { size[attempt] += $5 }
        END { for (attempt in size) printf "%s %.0f\n", attempt, size[attempt] }'
)

# say STATE BYTES: prints a line for the dispatcher.
say() {
    # shellcheck disable=SC2086  # fields
    set -- "$2" $1
    _sa_age=0
    if [ "$5" != 0 ]; then
        epoch
        _sa_age=$((EPOCH - $5))
        [ "$_sa_age" -ge 0 ] || _sa_age=0
    fi
    printf 'job %s %s %s %s %s %s %s %s\n' "$2" "$3" "$4" "$_sa_age" "$1" "$6" "$7" "$8"
}
