#!/bin/sh
exec awk -v version=@VERSION@ -v lib=@PREFIX@/lib/tinylang@TLVERSION@ \
    -f @PREFIX@/libexec/tinylang@TLVERSION@.awk -- "$@"
