#!/bin/sh
# pkg_delete: removes installed packages.

. "${PKG_LIBEXEC:=@PREFIX@/libexec/pkg_install}/pkg_install.subr"

# dependents NAME: what requires an installed package.
dependents() {
	cat "$PKG_DBDIR/$1/+REQUIRED_BY" 2>/dev/null
}

# holds LIST WORD: whether the blank separated list has the word.
holds() {
	case " $1 " in
	*" $2 "*) return 0 ;;
	esac
	return 1
}

# put_in_order: moves the names of $todo into $order, dependents first; with -r dependents are
# added. What nothing can be done about stays in $todo.
put_in_order() {
	order=
	moved=yes
	while [ -n "$moved" ]; do
		moved=
		left=
		for name in $todo; do
			blocked=
			for other in $(dependents "$name"); do
				holds "$order" "$other" && continue
				blocked=yes
				if [ -n "$recurse" ] && ! holds "$todo $left" "$other"; then
					left="$other $left"
					moved=yes
				fi
			done
			if [ -n "$blocked" ]; then
				left="$left $name"
			else
				order="$order $name"
				moved=yes
			fi
		done
		todo=$left
	done
}

# remove NAME: its files, directories that become empty, its entry.
remove() (
	contents=$PKG_DBDIR/$1/+CONTENTS
	cd "$(prefix_of "$contents")" || exit 1
	failed=0
	files "$contents" >"$PKG_DBDIR/.delete.$$"
	while IFS= read -r file; do
		rm "$file" || failed=1
		case $file in
		*/*)	rmdir -p "${file%/*}" 2>/dev/null ;;
		esac
	done <"$PKG_DBDIR/.delete.$$"
	for list in "$PKG_DBDIR"/*/+REQUIRED_BY; do
		grep -F -x "$1" "$list" >/dev/null 2>&1 || continue
		grep -F -x -v "$1" "$list" >"$PKG_DBDIR/.delete.$$"
		cat "$PKG_DBDIR/.delete.$$" >"$list"
		[ -s "$list" ] || rm "$list"
	done
	rm -f "$PKG_DBDIR/.delete.$$"
	rm -rf "$PKG_DBDIR/${1:?}" || failed=1
	exit $failed
)

force= keep= recurse= verbose=
while getopts fK:krv option; do
	case $option in
	f)	force=yes ;;
	K)	PKG_DBDIR=$OPTARG ;;
	k)	keep=yes ;;
	r)	recurse=yes ;;
	v)	verbose=yes ;;
	*)	echo "usage: pkg_delete [-fkrv] [-K pkg_dbdir] package ..." >&2; exit 1 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || die "missing package name(s)"

todo= status=0
for pattern in "$@"; do
	found=$(installed | matching "$pattern") ||
		{ warn "No package matching \`$pattern' found"; status=1; }
	for name in $found; do
		[ -n "$keep" ] && [ -f "$PKG_DBDIR/$name/+PRESERVE" ] && continue
		holds "$todo" "$name" || todo="$todo $name"
	done
done
[ $status -eq 0 ] || exit 1

put_in_order
for name in $todo; do
	echo "Package \`$name' is still required by other packages:" >&2
	dependents "$name" | sed 's/^/	/' >&2
done
[ -z "$todo" ] || [ -n "$force" ] || exit 1

preserved=
for name in $order $todo; do
	[ ! -f "$PKG_DBDIR/$name/+PRESERVE" ] || preserved="$preserved $name"
done
if [ -n "$preserved" ] && [ -z "$force" ]; then
	warn "The following packages are marked as not for deletion:"
	printf '\t%s\n' $preserved >&2
	exit 1
fi

for name in $order $todo; do
	[ -z "$verbose" ] || echo "Deleting $name"
	remove "$name" || { warn "couldn't entirely delete package \`$name'"; status=1; }
done
exit $status
