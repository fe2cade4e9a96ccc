#!/bin/sh
# pkg_admin: the odd jobs.

. "${PKG_LIBEXEC:=@PREFIX@/libexec/pkg_install}/pkg_install.subr"

usage() {
	cat >&2 <<-EOF
	usage: pkg_admin [-K pkg_dbdir] command argument ...
	    pmatch pattern name         exit 0 if the pattern matches the name, else 1
	    lsall | lsbest dir/pattern  the files of a directory that match, or the best of them
	    check [pattern]             compare installed files with their recorded checksums
	    digest file ...             SHA256 of files
	EOF
	exit 1
}

# check NAME: compares one package's files with what +CONTENTS says about them.
check() {
	cd "$(prefix_of "$PKG_DBDIR/$1/+CONTENTS")" || return 1
	sed -n -e '/^[^@]/h' -e '/^@comment MD5:/{s///;G;s/\n/ /p;}' "$PKG_DBDIR/$1/+CONTENTS" |
	while read -r sum file; do
		if [ ! -f "$file" ]; then
			warn "$1: file \`$file' is missing"
			echo bad
		elif [ "$(digest_of md5 "$file")" != "$sum" ]; then
			warn "$1: file \`$file' has another checksum than recorded"
			echo bad
		fi
	done | grep bad >/dev/null && return 1
	return 0
}

if [ "$1" = -K ]; then
	PKG_DBDIR=$2
	shift 2
fi
command=$1
[ $# -eq 0 ] || shift
case $command in
pmatch)
	[ $# -eq 2 ] || usage
	echo "$2" | matching "$1" >/dev/null || exit 1 ;;
lsall | lsbest)
	[ $# -eq 1 ] || usage
	dir=$(dirname "$1")
	best=${command#lsall}
	ls "$dir" | sed -n 's/\.tgz$//p' | matching "$(basename "$1")" ${best:+best} |
	    sed "s|.*|$dir/&.tgz|" ;;
check)
	status=0
	for name in $(installed | matching "${1:-*}"); do
		(check "$name") || status=1
	done
	exit $status ;;
digest)
	for file in "$@"; do
		digest_of sha256 "$file" || exit 1
	done ;;
*)
	usage ;;
esac
