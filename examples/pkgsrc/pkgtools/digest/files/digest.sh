#!/bin/sh
# usage: digest algorithm [file ...]
#
# Prints "ALGORITHM (file) = digest" for each file, or the digest of standard input alone.

LC_ALL=C
export LC_ALL
[ $# -gt 0 ] || { echo "usage: digest algorithm [file ...]" >&2; exit 64; }
algorithm=$(echo "$1" | tr 'A-Z' 'a-z')
shift
case $algorithm in
md5 | sha1 | sha256 | sha512) ;;
*)	echo "digest: unknown algorithm $algorithm" >&2; exit 64 ;;
esac

# The digest of standard input in hexadecimal.
compute() {
	if command -v "${algorithm}sum" >/dev/null 2>&1; then
		"${algorithm}sum" | sed 's/ .*//'
	elif command -v openssl >/dev/null 2>&1; then
		openssl dgst "-$algorithm" | sed 's/.* //'
	elif command -v "$algorithm" >/dev/null 2>&1; then
		"$algorithm" | sed 's/.* //'
	else
		cksum -a "$algorithm" | sed 's/ .*//; s/.*= //'
	fi
}

if [ $# -eq 0 ]; then
	compute
	exit
fi
status=0
for file in "$@"; do
	if sum=$(compute <"$file"); then
		echo "$(echo "$algorithm" | tr 'a-z' 'A-Z') ($file) = $sum"
	else
		status=1
	fi
done
exit $status
