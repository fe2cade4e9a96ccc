# On the host: what the log of a failed stage shows, as facts and without judgement. Sourced.

# Bytes of the end of a log that are looked at.
TELLING=65536

# seen WORD REGEX: prints EVIDENCE='WORD' if the end of the log has a line that matches.
seen() {
    ! grep -E "$2" "$job/.tail" >/dev/null || fact EVIDENCE "$1"
}

# first_match REGEX: prints what in the first line that matches stands after the match.
first_match() {
    awk -v regex="$1" 'match($0, regex) { print substr($0, RSTART + RLENGTH); exit }' "$job/.tail" |
        tr -cd '\040-\176'
}

# telling_line STAGE: prints the one line of the log that says most.
telling_line() {
    awk -v stage="$1" '
        /[^ \t]/ { last = $0 }
        /[^ \t]/ && !/^\*\*\*|^[a-z]*make(\[[0-9]+\])?:|^Stop\.?$/ { said = $0 }
        !error && /[Ee]rror: |ERROR: |fatal: |undefined reference|[Uu]nable to fetch|mismatch for|NOT found|No space left|^stages: / { error = $0 }
        stage == "checksum" && (/^(curl|wget|ftp|fetch): |ERROR [45][0-9][0-9]|[Cc]onnection refused|mismatch for/ && !/Unable to fetch/) { why = $0 }
        END { print why ? why : error ? error : said ? said : last }' "$job/.tail" |
        tr '\t' ' ' | tr -cd '\040-\176' | cut -c 1-300
}

# evidence STAGE STATUS LIMIT: prints MESSAGE, EVIDENCE and further facts.
evidence() {
    tail -c $TELLING "$job/log/$1.log" >"$job/.tail" 2>/dev/null || : >"$job/.tail"
    evidence_exit "$@"
    evidence_host
    case $1 in
    depends) evidence_depends "$2" ;;
    checksum) evidence_checksum ;;
    esac
    _ev=$(first_match 'stages: tool: |env: ')
    case $2:$_ev in
    127:* | *"a SHA256"*)
        fact EVIDENCE tool
        fact TOOL "$_ev"
        ;;
    esac
    seen tree '^stages: tree: '
    seen no-package '^stages: no-package: '
    if grep ' dependency .*: NOT found' "$job/.tail" >/dev/null; then
        fact EVIDENCE unlisted
        fact REQUIREMENT "$(first_match ' dependency ' | sed 's/: NOT found.*//')"
    fi
    rm -f "$job/.tail"
}

# evidence_exit STAGE STATUS LIMIT: how it ended, and the message.
evidence_exit() {
    if [ -n "$3" ]; then
        fact EVIDENCE "${3%% *}"
        fact LIMIT "${3#* }"
        fact MESSAGE "$1 was ended by the ${3%% *} of ${3#* }"
        return
    fi
    if [ "$2" -gt 128 ]; then
        fact EVIDENCE signal
        fact SIGNAL $(($2 - 128))
        fact MESSAGE "$1 was killed by signal $(($2 - 128))"
        return
    fi
    fact EVIDENCE exit
    fact MESSAGE "$1 ended with status $2: $(telling_line "$1")"
}

# room DIR: can something be written there?
room() {
    dd if=/dev/zero of="$1/.room.$$" bs=65536 count=4 2>/dev/null
    _ro_status=$?
    rm -f "$1/.room.$$"
    return $_ro_status
}

# room_in_layer: and to what takes the changes of a job, which may be another file system?
room_in_layer() {
    case $J_SANDBOX in
    overlay | chroot) room /var/tmp ;;
    esac
}

# evidence_host: what no package can help.
evidence_host() {
    # Where the disk is full the log may have had no room for saying so.
    if room "$job" && room_in_layer; then
        seen no-space 'No space left on device|Disk quota exceeded|[Ff]ile ?system (is )?full'
    else
        fact EVIDENCE no-space
    fi
    seen memory 'virtual memory exhausted|Cannot allocate memory|Killed signal terminated program|internal compiler error: Killed|std::bad_alloc|LLVM ERROR: out of memory|\*\*\* Signal 9'
    _eh='Input/output error|Stale (NFS )?file handle|Structure needs cleaning'
    # In these sandboxes there is much that may only be read.
    case $J_SANDBOX in
    overlay | chroot) ;;
    *) _eh="$_eh|Read-only file system" ;;
    esac
    seen disk-error "$_eh"
}

# evidence_depends STATUS
evidence_depends() {
    fact EVIDENCE requirement
    _ed=$(first_match "no pkg found for '")
    [ -z "$_ed" ] || fact REQUIREMENT "${_ed%%"'"*}"
    seen damaged 'Read error|[Tt]runcated|not in gzip format|unexpected end of file|crc error|invalid tar|[Uu]nrecognized archive'
}

# fetched: tells a log on standard input that distfiles were fetched, or that it was tried?
fetched() {
    grep -E '^=> Fetching |[Uu]nable to fetch expected file ' >/dev/null
}

# names_url: is there a URL in the log on standard input?
names_url() {
    grep -E '(https?|ftp|file)://' >/dev/null
}

# evidence_checksum: a distfile that could not be had, or is not the one wanted.
evidence_checksum() {
    _ec=$(first_match 'Checksum .*mismatch for ')
    if [ -n "$_ec" ]; then
        fact EVIDENCE checksum
    else
        _ec=$(first_match '[Uu]nable to fetch expected file ')
        [ -n "$_ec" ] || return 0
        fact EVIDENCE fetch
    fi
    fact DISTFILE "${_ec%% *}"
    if names_url <"$job/.tail"; then
        fact SITES "$(sites)"
    elif ! fetched <"$job/log/checksum.log"; then
        fact SITES "${J_DISTDIR:-$J_TREE/distfiles}"
    fi
}

# sites: prints the hosts of all URLs in the log, each once, and directories; five at most.
sites() {
    awk '
        {
            while (match($0, /(https?|ftp):\/\/[^\/ "<>()]+|file:\/\/[^ "<>()]+/)) {
                site = substr($0, RSTART, RLENGTH)
                sub(/^[a-z]+:\/\//, "", site)
                if (!(site in said)) {
                    said[site] = 1
                    if (++count <= 5) { printf "%s%s", gap, site; gap = " " }
                }
                $0 = substr($0, RSTART + RLENGTH)
            }
        }
        END { if (count > 5) printf " and %d more", count - 5 }' "$job/.tail" | tr -cd '\040-\176'
}
