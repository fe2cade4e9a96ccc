# pbulk-index: what a bulk build has to know about the package.
#
# A package that can be built for several versions of a language or of another package gives one
# record for each. For each class of versions
#	_PBULK_MULTI_LIST.class		names the variable with the accepted versions,
#	_PBULK_MULTI_VAR.class		the variable that asks for one of them,
#	_PBULK_MULTI_DEFAULT.class	the variable with the default.
# The default comes first: of records with the same PKGNAME the first one counts. The first class
# varies fastest. NO_MULTI_PKG turns this off.

_PBULK_MULTI?=	recdb tinylang

_PBULK_MULTI_LIST.recdb=	RECDB_VERSIONS_ACCEPTED
_PBULK_MULTI_VAR.recdb=		RECDB_VERSION_REQD
_PBULK_MULTI_DEFAULT.recdb=	RECDB_VERSION_DEFAULT

_PBULK_MULTI_LIST.tinylang=	TINYLANG_VERSIONS_ACCEPTED
_PBULK_MULTI_VAR.tinylang=	TINYLANG_VERSION_REQD
_PBULK_MULTI_DEFAULT.tinylang=	TINYLANG_VERSION_DEFAULT

# All combinations, each a word like "TINYLANG_VERSION_REQD=13,RECDB_VERSION_REQD=2".
.if !defined(NO_MULTI_PKG)
.  for _c in ${_PBULK_MULTI}
_all:=		${${_PBULK_MULTI_LIST.${_c}}}
.    if !empty(_all)
_default:=	${${_PBULK_MULTI_DEFAULT.${_c}}}
_var:=		${_PBULK_MULTI_VAR.${_c}}
_all:=		${_all:M${_default}} ${_all:N${_default}}
.      if empty(_PBULK_VARIANTS)
_PBULK_VARIANTS:=	${_all:S/^/${_var}=/}
.      else
_PBULK_VARIANTS:=	${_all:@a@${_PBULK_VARIANTS:S/^/${_var}=${a},/}@}
.      endif
.    endif
.  endfor
.endif

.PHONY: pbulk-index pbulk-index-item
.if empty(_PBULK_VARIANTS)
pbulk-index: pbulk-index-item
.else
pbulk-index:
.  for _v in ${_PBULK_VARIANTS}
	@env ${_v:S/,/ /g} _PBULK_VARIANT=${_v:S/,/ /g:Q} ${MAKE} pbulk-index-item
.  endfor
.endif

pbulk-index-item:
	@printf '%s\n' \
	    PKGNAME=${PKGNAME:Q} \
	    ALL_DEPENDS=${_ALL_DEPENDS:Q} \
	    PKG_SKIP_REASON=${PKG_SKIP_REASON:Q} \
	    PKG_FAIL_REASON=${PKG_FAIL_REASON:Q} \
	    NO_BIN_ON_FTP=${NO_BIN_ON_FTP:Q} \
	    RESTRICTED=${RESTRICTED:Q} \
	    CATEGORIES=${CATEGORIES:Q} \
	    MAINTAINER=${MAINTAINER:Q} \
	    USE_DESTDIR=${_USE_DESTDIR:Q} \
	    BOOTSTRAP_PKG=${BOOTSTRAP_PKG:Q} \
	    USERGROUP_PHASE=${USERGROUP_PHASE:Q} \
	    SCAN_DEPENDS=${.MAKE.MAKEFILES:O:u:Q} \
	    ${MAKE_JOBS_SAFE:M[nN][oO]:C/^.+$/MAKE_JOBS_SAFE=no/} \
	    ${PBULK_WEIGHT:D'PBULK_WEIGHT=${PBULK_WEIGHT}'} \
	    ${_PBULK_VARIANT:D'MULTI_VERSION= ${_PBULK_VARIANT}'}
