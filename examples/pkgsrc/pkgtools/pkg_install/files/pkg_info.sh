#!/bin/sh
# pkg_info: tells about installed packages and package files.

. "${PKG_LIBEXEC:=@PREFIX@/libexec/pkg_install}/pkg_install.subr"

# section TITLE: what is on standard input, under a title unless -q was given.
section() {
	[ -n "$quiet" ] || echo "$1"
	cat
}

# all_of TITLE FILE: a whole file, and an empty line.
all_of() {
	{ cat "$2"; echo; } | section "$1"
}

# list_of TITLE KEYWORD CONTENTS: the values of the @KEYWORD lines, and an empty line if any.
list_of() {
	[ -z "$(entries "$2" "$3")" ] || { entries "$2" "$3"; echo; } | section "$1"
}

# build_info NAME DIR: the values of one variable of the build.
build_info() {
	sed -n "s/^$1=//p" "$2/+BUILD_INFO"
}

summary_variables='PKGPATH|CATEGORIES|PROVIDES|REQUIRES|PKG_OPTIONS|OPSYS|OS_VERSION|MACHINE_ARCH'
summary_variables="$summary_variables|LICENSE|HOMEPAGE|PKGTOOLS_VERSION|BUILD_DATE|PREV_PKGPATH"
summary_variables="$summary_variables|SUPERSEDES"

# summary DIR [FILE]: the entry of pkg_summary(5).
summary() {
	sed -n 's/^@name /PKGNAME=/p; s/^@pkgdep /DEPENDS=/p; s/^@pkgcfl /CONFLICTS=/p' \
	    "$1/+CONTENTS"
	sed 's/^/COMMENT=/' "$1/+COMMENT"
	sed 's/^/SIZE_PKG=/' "$1/+SIZE_PKG"
	grep -E "^($summary_variables)=" "$1/+BUILD_INFO"
	if [ -n "$2" ]; then
		echo "FILE_NAME=${2##*/}"
		echo "FILE_SIZE=$(($(wc -c <"$2")))"
	fi
	sed 's/^/DESCRIPTION=/' "$1/+DESC"
	echo
}

# tell DIR [FILE]: what the options ask about one package.
tell() {
	name=$(entries name "$1/+CONTENTS")
	case $show in
	*I*)	printf '%-19s %s\n' "$name" "$(cat "$1/+COMMENT")"; return ;;
	*Q*)	build_info "$variable" "$1"; return ;;
	*X*)	summary "$@"; return ;;
	esac
	[ -n "$quiet" ] || printf 'Information for %s:\n\n' "$name"
	for what in $(echo "$show" | sed 's/./& /g'); do
		case $what in
		B)	all_of "Build information:" "$1/+BUILD_INFO" ;;
		b)	all_of "Build version:" "$1/+BUILD_VERSION" ;;
		c)	all_of "Comment:" "$1/+COMMENT" ;;
		d)	all_of "Description:" "$1/+DESC" ;;
		L)	prefix=$(prefix_of "$1/+CONTENTS")
			files "$1/+CONTENTS" | sed "s|^|$prefix/|" | section "Files:" ;;
		N)	list_of "Built using:" blddep "$1/+CONTENTS" ;;
		n)	list_of "Requires:" pkgdep "$1/+CONTENTS" ;;
		R)	[ ! -f "$1/+REQUIRED_BY" ] || section "Required by:" <"$1/+REQUIRED_BY" ;;
		s)	all_of "Size of this package in bytes:" "$1/+SIZE_PKG" ;;
		esac
	done
}

# look_at PACKAGE: a package file, or the best installed package that matches.
look_at() (
	if [ -f "$1" ]; then
		tmp=${TMPDIR:-/tmp}/pkg_info.$$
		trap 'rm -rf "$tmp"' EXIT
		mkdir "$tmp" || exit 1
		unpack_meta "$1" "$tmp" || { warn "invalid package \`$1' skipped"; exit 1; }
		tell "$tmp" "$1"
	elif name=$(installed | matching "$1" best); then
		tell "$PKG_DBDIR/$name"
	else
		warn "can't find package \`$1'"
		exit 1
	fi
)

all= quiet= show= variable=
while getopts aBbcdE:e:IK:LNnQ:qRsVX option; do
	case $option in
	a)	all=yes ;;
	E)	installed | matching "$OPTARG" best; exit ;;
	e)	installed | matching "$OPTARG"; exit ;;
	K)	PKG_DBDIR=$OPTARG ;;
	Q)	variable=$OPTARG show=Q ;;
	q)	quiet=yes ;;
	V)	echo @VERSION@; exit ;;
	'?')	echo "usage: pkg_info [-aBbcdILNnqRsVX] [-e pattern | -E pattern] [-K pkg_dbdir]" \
		    "[-Q variable] [package ...]" >&2; exit 1 ;;
	*)	show=$show$option ;;
	esac
done
shift $((OPTIND - 1))
if [ $# -eq 0 ]; then
	[ -n "$all" ] || [ -z "$show" ] || die "missing package name(s)"
	: "${show:=I}"
	set -- $(installed)
fi
: "${show:=cd}"

status=0
for package in "$@"; do
	look_at "$package" || status=1
done
exit $status
