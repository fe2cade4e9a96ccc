#!/bin/sh
# usage: docgen -t html|man [file ...]

type=html
while getopts t: option; do
	case $option$OPTARG in
	thtml | tman)	type=$OPTARG ;;
	*)		echo "usage: docgen -t html|man [file ...]" >&2; exit 64 ;;
	esac
done
shift $((OPTIND - 1))
exec awk -v type="$type" -f @PREFIX@/share/docgen/docgen.awk "$@"
