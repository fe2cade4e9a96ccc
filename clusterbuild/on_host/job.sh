# On the host: the job file, read strictly and never executed, and the result. Sourced.

# Names a job file may hold once, as $J_NAME; VARIABLE, REQUIRE, DISTFILE, SCAN and CATEGORY may
# stand any number of times, one per line of $J_VARIABLE, $J_REQUIRE and so on.
JOB_NAMES="ATTEMPT PKGNAME PKGPATH TREE PREFIX PKGDB KIT MAKE DISTDIR MAKE_JOBS BOOTSTRAP \
USERGROUP_PHASE USE_DESTDIR BUILD_USER SANDBOX SLOTS TIME_LIMIT STAGE_TIME_LIMIT LOG_LIMIT \
SEARCH_PATH BASE_DIR BASE_FILE LAYER_SIZE \
KIND ENUMERATE CACHE SCAN_TIME_LIMIT OUTPUT_LIMIT"

# read_job FILE: sets J_*; fails with WHY.
read_job() {
    for _rj in $JOB_NAMES VARIABLE REQUIRE DISTFILE SCAN CATEGORY; do
        eval "J_$_rj="
    done
    _rj_seen=' '
    WHY='it is not there, or no plain file'
    [ -f "$1" ] && [ ! -L "$1" ] || return 1
    _rj_number=0
    while IFS= read -r _rj_line || [ -n "$_rj_line" ]; do
        _rj_number=$((_rj_number + 1))
        job_line "$_rj_line" || {
            WHY="line $_rj_number: $WHY"
            return 1
        }
    done <"$1"
    check_job
}

# job_line LINE: takes one line of a job file; fails with WHY.
job_line() {
    _jl_name=${1%%=*}
    WHY='not of the form NAME='"'value'"
    [ "$_jl_name" != "$1" ] && unquote "${1#*=}" || return 1
    WHY='a control character or one that is not ASCII'
    case $VALUE in
    *[![:print:]]*) return 1 ;;
    esac
    case $_jl_name in
    VARIABLE) J_VARIABLE="$J_VARIABLE$VALUE$NL" && return ;;
    REQUIRE) J_REQUIRE="$J_REQUIRE$VALUE$NL" && return ;;
    DISTFILE) J_DISTFILE="$J_DISTFILE$VALUE$NL" && return ;;
    SCAN) J_SCAN="$J_SCAN$VALUE$NL" && return ;;
    CATEGORY) J_CATEGORY="$J_CATEGORY$VALUE$NL" && return ;;
    esac
    WHY="unknown name '$_jl_name'"
    case " $JOB_NAMES " in
    *[!A-Z_\ ]*) return 1 ;;
    *" $_jl_name "*) ;;
    *) return 1 ;;
    esac
    WHY="$_jl_name stands twice"
    case $_rj_seen in
    *" $_jl_name "*) return 1 ;;
    esac
    _rj_seen="$_rj_seen$_jl_name "
    eval "J_$_jl_name=\$VALUE"
}

# check_job: defaults, and whether every value is one that can be; fails with WHY.
check_job() {
    : "${J_PKGDB:=$J_PREFIX/pkgdb}"
    : "${J_MAKE:=bmake}"
    : "${J_SANDBOX:=mount}"
    : "${J_SLOTS:=1}"
    : "${J_USE_DESTDIR:=user-destdir}"
    : "${J_SEARCH_PATH:=$J_PREFIX/bin:$J_PREFIX/sbin:/usr/bin:/bin:/usr/sbin:/sbin}"
    WHY='ATTEMPT is not the name of this directory'
    [ "$J_ATTEMPT" = "$attempt" ] || return 1
    for _cj in TREE PREFIX PKGDB ${J_DISTDIR:+DISTDIR}; do
        eval "_cj_value=\$J_$_cj"
        WHY="$_cj is not a usable absolute path: '$_cj_value'"
        valid_path "$_cj_value" || return 1
    done
    for _cj in MAKE_JOBS TIME_LIMIT STAGE_TIME_LIMIT SLOTS; do
        eval "_cj_value=\${J_$_cj:=0}"
        WHY="$_cj is not a number below a thousand million: '$_cj_value'"
        valid_number "$_cj_value" || return 1
    done
    : "${J_LOG_LIMIT:=0}"
    WHY="LOG_LIMIT is not a number: '$J_LOG_LIMIT'"
    case $J_LOG_LIMIT in
    *[!0-9]*) return 1 ;;
    esac
    check_kind && check_requirements && check_distfiles && check_sandbox
}

# valid_pkgname NAME: names no option, no directory, and no other file.
valid_pkgname() {
    case $1 in
    '' | [-.]* | *[!A-Za-z0-9_.+,@~-]*) return 1 ;;
    esac
    [ "${#1}" -le 200 ]
}

# valid_pkgpath TEXT: category/package.
valid_pkgpath() {
    case $1 in
    */*/* | /* | */ | [-.]* | */[.-]* | *[!A-Za-z0-9_.+/-]*) return 1 ;;
    */*) return 0 ;;
    esac
    return 1
}

# check_kind: what a build, or a scan, has for itself; fails with WHY.
check_kind() {
    : "${J_KIND:=build}"
    case $J_KIND in
    build)
        WHY="PKGNAME is not one: '$J_PKGNAME'"
        valid_pkgname "$J_PKGNAME" || return 1
        WHY="PKGPATH is not category/package: '$J_PKGPATH'"
        valid_pkgpath "$J_PKGPATH" || return 1
        ;;
    scan) check_scan || return 1 ;;
    *)
        WHY="unknown KIND '$J_KIND'; known are build and scan"
        return 1
        ;;
    esac
    check_names
}

# check_scan: fails with WHY.
check_scan() {
    for _cs in SCAN_TIME_LIMIT OUTPUT_LIMIT; do
        eval "_cs_value=\$J_$_cs"
        WHY="$_cs is not a number from 1 to 999999999: '$_cs_value'"
        valid_number "$_cs_value" && [ "$_cs_value" -gt 0 ] || return 1
    done
    WHY="CACHE is not a name: '$J_CACHE'"
    valid_attempt "$J_CACHE" || return 1
    WHY="a scan has either ENUMERATE='yes' or SCAN"
    case $J_ENUMERATE in
    yes) [ -z "$J_SCAN" ] && return || return 1 ;;
    ?*) return 1 ;;
    esac
    [ -n "$J_SCAN" ] || return 1
    while IFS= read -r _cs; do
        WHY="a SCAN is not category/package: '$_cs'"
        [ -z "$_cs" ] || valid_pkgpath "$_cs" || return 1
    done <<SCANS
$J_SCAN
SCANS
}

# check_names: the names that end up in commands and paths; fails with WHY.
check_names() {
    WHY="BUILD_USER is not a user's name: '$J_BUILD_USER'"
    case $J_BUILD_USER in
    -* | *[!A-Za-z0-9_-]*) return 1 ;;
    esac
    WHY="KIT is not a sha256 in hex: '$J_KIT'"
    [ -z "$J_KIT" ] || valid_digest "$J_KIT"
}

# valid_digest TEXT
valid_digest() {
    case $1 in
    *[!0-9a-f]*) return 1 ;;
    esac
    [ "${#1}" -eq 64 ]
}

# check_requirements: each "direct|indirect PKGNAME SHA256 SIZE SUFFIX"; fails with WHY.
check_requirements() {
    while IFS=' ' read -r _cr_how _cr_name _cr_digest _cr_size _cr_suffix _cr_rest; do
        [ -n "$_cr_how" ] || continue
        WHY="a REQUIRE is not 'direct|indirect PKGNAME SHA256 SIZE SUFFIX': $_cr_name"
        case $_cr_how in
        direct | indirect) ;;
        *) return 1 ;;
        esac
        valid_pkgname "$_cr_name" && valid_digest "$_cr_digest" && [ -z "$_cr_rest" ] || return 1
        case $_cr_size in
        '' | *[!0-9]*) return 1 ;;
        esac
        case $_cr_suffix in
        .*/* | .*[!A-Za-z0-9.]*) return 1 ;;
        .?*) ;;
        *) return 1 ;;
        esac
    done <<REQUIREMENTS
$J_REQUIRE
REQUIREMENTS
}

# check_distfiles: each "NAME SHA256 SIZE"; fails with WHY.
check_distfiles() {
    while IFS=' ' read -r _cd_name _cd_digest _cd_size _cd_rest; do
        [ -n "$_cd_name" ] || continue
        WHY="a DISTFILE is not 'NAME SHA256 SIZE': $_cd_name"
        valid_path "/$_cd_name" && valid_digest "$_cd_digest" && [ -z "$_cd_rest" ] || return 1
        case $_cd_size in
        '' | *[!0-9]*) return 1 ;;
        esac
    done <<DISTFILES
$J_DISTFILE
DISTFILES
}

# check_sandbox: fails with WHY.
check_sandbox() {
    WHY="SLOTS must be 1 or more"
    [ "$J_SLOTS" -ge 1 ] || return 1
    : "${J_LAYER_SIZE:=0}"
    WHY="LAYER_SIZE is not a number of bytes: '$J_LAYER_SIZE'"
    case $J_LAYER_SIZE in
    *[!0-9]*) return 1 ;;
    esac
    WHY="BASE_FILE is not a sha256 in hex: '$J_BASE_FILE'"
    [ -z "$J_BASE_FILE" ] || valid_digest "$J_BASE_FILE" || return 1
    WHY="BASE_DIR is not a usable absolute path: '$J_BASE_DIR'"
    [ -z "$J_BASE_DIR" ] || valid_path "$J_BASE_DIR" || return 1
    case $J_SANDBOX in
    mount | overlay) ;;
    chroot)
        WHY="SANDBOX chroot needs BASE_DIR or BASE_FILE, and not both"
        [ -n "$J_BASE_DIR$J_BASE_FILE" ] && { [ -z "$J_BASE_DIR" ] || [ -z "$J_BASE_FILE" ]; }
        ;;
    none)
        WHY="a host whose sandbox is 'none' has one slot, not $J_SLOTS: they would share the prefix"
        [ "$J_SLOTS" -eq 1 ]
        ;;
    *)
        WHY="unknown SANDBOX '$J_SANDBOX'; known are mount, overlay, chroot and none"
        return 1
        ;;
    esac
}

# write_result OUTCOME STAGE EXIT MESSAGE FACTS: FACTS are further lines as `fact` prints them.
# The first result stands. Where the disk is full the work of the job makes room.
write_result() {
    [ ! -e "$job/result" ] || return 0
    epoch
    _wr_text=$(
        fact ATTEMPT "$attempt"
        fact OUTCOME "$1"
        fact STAGE "$2"
        fact EXIT "$3"
        fact MESSAGE "$4"
        [ -z "$5" ] || printf '%s\n' "$5"
        fact SLOT "${SLOT:-0}"
        fact SANDBOX "${J_SANDBOX:-}"
        fact STARTED "${STARTED:-$EPOCH}"
        fact FINISHED "$EPOCH"
        fact END yes
    )
    write_whole "$job/result" "$_wr_text"
}

# write_whole FILE TEXT: the file is there with all of the text, or as it was. Where the disk is
# full, what the job does not need any more makes room, and the text says so.
write_whole() {
    _wh_text=$2
    for _wh in reserve work tmp prefix packages; do
        { printf '%s\n' "$_wh_text" >"$1.new"; } 2>/dev/null && sync_file "$1.new" &&
            mv -f "$1.new" "$1" && return
        if [ -d "$job/$_wh" ]; then
            empty_directory "$job/$_wh"
        else
            rm -f "$job/$_wh"
        fi
        case $_wh_text in
        *"EVIDENCE='no-space'"*) ;;
        *) _wh_text="EVIDENCE='no-space'$NL$_wh_text" ;;
        esac
    done
    return 1
}
