#!/bin/sh
# pkg_add: installs packages, and from PKG_PATH what they require.

. "${PKG_LIBEXEC:=@PREFIX@/libexec/pkg_install}/pkg_install.subr"

# find_package NAME: the file that is meant by a file name, package name or pattern.
find_package() (
	[ ! -f "$1" ] || { echo "$1"; exit; }
	IFS=';'
	for dir in ${PKG_PATH:-.}; do
		dir=${dir#file://}
		[ ! -f "$dir/$1.tgz" ] || { echo "$dir/$1.tgz"; exit; }
		best=$(ls "$dir" 2>/dev/null | sed -n 's/\.tgz$//p' | matching "$1" best) || continue
		echo "$dir/$best.tgz"
		exit
	done
	exit 1
)

# conflicts NAME CONTENTS: prints why the package cannot go beside what is installed, if so.
conflicts() {
	installed | matching "${1%-*}-[0-9]*" | while read -r other; do
		[ "${other%-*}" != "${1%-*}" ] ||
			echo "A different version of $1 is already installed: $other"
	done
	entries pkgcfl "$2" | while read -r pattern; do
		installed | matching "$pattern" | while read -r other; do
			echo "Package \`$1' conflicts with \`$pattern', and \`$other' is installed."
		done
	done
	grep '^@pkgcfl ' "$PKG_DBDIR"/*/+CONTENTS /dev/null 2>/dev/null | while read -r line; do
		other=${line%%/+CONTENTS:*}
		pattern=${line##*:@pkgcfl }
		! echo "$1" | matching "$pattern" >/dev/null ||
			echo "Installed package \`${other##*/}' conflicts with \`$pattern'."
	done
	awk 'FNR == 1 { part++ }
	    /^@cwd / { prefix = $2 }
	    /^@name / { owner = $2 }
	    /^[@+]/ { next }
	    part == 1 { mine[prefix "/" $0] }
	    part > 1 && (prefix "/" $0) in mine { print "Conflicting PLIST with " owner ": " $0 }
	' "$2" $(installed | sed "s|.*|$PKG_DBDIR/&/+CONTENTS|") | head -n 1
}

# requirements CONTENTS: installs what is missing; prints the names that satisfy the package.
requirements() (
	entries pkgdep "$1" | while read -r pattern; do
		if ! installed | matching "$pattern" best; then
			(add "$pattern" automatic) >&2 ||
				{ warn "Can't install dependency $pattern"; exit 1; }
			installed | matching "$pattern" best ||
				{ warn "Just installed dependency $pattern disappeared"; exit 1; }
		fi
	done
)

# add PACKAGE [automatic]: one package and its requirements. A subshell: it comes to call itself.
add() (
	file=$(find_package "$1") || die "no pkg found for '$1', sorry."
	depth=$((${depth:-0} + 1))
	tmp=$PKG_DBDIR/.add.$$.$depth
	trap 'rm -rf "$tmp" "$tmp.tar" "$tmp.requires"' EXIT
	mkdir -p "$tmp" || exit 1
	gzip -dc "$file" >"$tmp.tar" || die "Read error for $file: not a whole package file"
	(cd "$tmp" && tar -xof "$tmp.tar" $metafiles 2>/dev/null)
	[ -s "$tmp/+CONTENTS" ] || die "Read error for $file: no package file"
	name=$(entries name "$tmp/+CONTENTS")
	prefix=$(prefix_of "$tmp/+CONTENTS")
	[ -n "$name" ] && [ -n "$prefix" ] || die "Invalid PLIST in $file: missing @name or @cwd"

	if [ -d "$PKG_DBDIR/$name" ]; then
		[ -n "$2" ] || warn "package \`$name' already recorded as installed"
		exit 0
	fi
	why=$(conflicts "$name" "$tmp/+CONTENTS")
	[ -z "$why" ] || die "$why"
	requirements "$tmp/+CONTENTS" >"$tmp.requires" || exit 1

	set -f
	list=$(files "$tmp/+CONTENTS")
	if [ -n "$list" ]; then
		mkdir -p "$destdir$prefix" && cd "$destdir$prefix" && tar -xof "$tmp.tar" $list ||
			die "Extracting $file failed"
	fi
	[ -z "$2" ] || echo automatic=yes >"$tmp/+INSTALLED_INFO"
	sort -u "$tmp.requires" | while read -r other; do
		echo "$name" >>"$PKG_DBDIR/$other/+REQUIRED_BY" || exit 1
	done && mv "$tmp" "$PKG_DBDIR/$name" || die "Failed to register $name in $PKG_DBDIR"
	[ -z "$verbose" ] || echo "Package $name registered in $PKG_DBDIR/$name"
)

automatic= destdir= verbose=
while getopts AIK:P:v option; do
	case $option in
	A)	automatic=automatic ;;
	I)	;;			# no package has scripts that could be run
	K)	PKG_DBDIR=$OPTARG ;;
	P)	destdir=$OPTARG ;;
	v)	verbose=yes ;;
	*)	echo "usage: pkg_add [-AIv] [-K pkg_dbdir] [-P destdir] package ..." >&2; exit 1 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || die "missing package name(s)"
PKG_DBDIR=$destdir$PKG_DBDIR
mkdir -p "$PKG_DBDIR" && PKG_DBDIR=$(cd "$PKG_DBDIR" && pwd) || exit 1

failed=0
for package in "$@"; do
	add "$package" $automatic || failed=$((failed + 1))
done
[ $failed -eq 0 ] && exit 0
[ $failed -eq 1 ] && die "1 package addition failed"
die "$failed package additions failed"
