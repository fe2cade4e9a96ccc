#!/bin/sh
# usage: sitegen source-directory site-directory
#
# site.json in the source directory has the title and the pages: their names, and the names of the
# text files they are made from.

set -e
PATH=@PREFIX@/bin:$PATH
[ $# -eq 2 ] || { echo "usage: sitegen source-directory site-directory" >&2; exit 64; }
source=$1 site=$2
mkdir -p "$site"

title=$(tjq -r title <"$source/site.json")
count=$(tjq -c pages <"$source/site.json")
page=0
lengths=
while [ $page -lt "$count" ]; do
	name=$(tjq -r pages.$page.name <"$source/site.json")
	text=$(tjq -r pages.$page.text <"$source/site.json")
	docgen -t html "$source/$text" >"$site/$name.html"
	lengths="$lengths $(wc -w <"$source/$text")"
	page=$((page + 1))
done
echo $lengths | plot -w 32 -h 8 >"$site/lengths.ppm"
echo "$title: $count pages in $site"
