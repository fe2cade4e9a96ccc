#!/bin/sh
# pkg_create: makes a package file from staged files and their packing list.

. "${PKG_LIBEXEC:=@PREFIX@/libexec/pkg_install}/pkg_install.subr"

# with_checksums: the packing list on standard input, each file followed by what it holds.
with_checksums() {
	while IFS= read -r line; do
		printf '%s\n' "$line"
		case $line in
		@*)	continue ;;
		esac
		if [ -h "$line" ]; then
			echo "@comment Symlink:$(readlink "$line")"
		elif [ -f "$line" ]; then
			echo "@comment MD5:$(digest_of md5 "$line")"
		else
			warn "can't stat \`$line'"
			return 1
		fi
	done
}

conflicts= list= prefix= realprefix= meta=
while getopts B:b:C:c:d:F:f:g:I:lm:n:p:S:s:Uu: option; do
	case $option in
	B)	meta="$meta +BUILD_INFO=$OPTARG" ;;
	b)	meta="$meta +BUILD_VERSION=$OPTARG" ;;
	C)	conflicts=$OPTARG ;;
	c)	meta="$meta +COMMENT=$OPTARG" ;;
	d)	meta="$meta +DESC=$OPTARG" ;;
	f)	list=$OPTARG ;;
	I)	realprefix=$OPTARG ;;
	n)	meta="$meta +PRESERVE=$OPTARG" ;;
	p)	prefix=$OPTARG ;;
	S)	meta="$meta +SIZE_ALL=$OPTARG" ;;
	s)	meta="$meta +SIZE_PKG=$OPTARG" ;;
	F | g | l | U | u) ;;		# always gzip, owned by root
	*)	echo "usage: pkg_create [options] -f packlist -p prefix file.tgz" >&2; exit 1 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] && [ -f "$list" ] && [ -n "$prefix" ] ||
	die "packing list, prefix or file name missing"
case $1 in
/*)	file=$1 ;;
*)	file=$PWD/$1 ;;
esac

# The + files are put beside the staged ones, so that one run of tar packs all in order.
cd "$prefix" || exit 1
set -f
trap 'cd "$prefix" && rm -f $metafiles' EXIT
{
	echo "@cwd ${realprefix:-$prefix}"
	for pattern in $conflicts; do
		echo "@pkgcfl $pattern"
	done
	cat "$list"
} | with_checksums >+CONTENTS || exit 1
echo "@cwd ${realprefix:-$prefix}" >>+CONTENTS
for pair in $meta; do
	cp "${pair#*=}" "${pair%%=*}" || exit 1
done
present=+CONTENTS
for name in ${metafiles#+CONTENTS}; do
	[ -f "$name" ] || continue
	present="$present $name"
	printf '@ignore\n%s\n' "$name" >>+CONTENTS
done
make_tgz "$file" $present $(files "$list") || die "cannot write $file"
