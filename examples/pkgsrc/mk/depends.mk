# Requirements: PATTERN:../../category/directory.
#
# BOOTSTRAP_DEPENDS, BUILD_DEPENDS and TOOL_DEPENDS are wanted while building, DEPENDS also when
# the package is used. A library's buildlink3.mk names it in BUILDLINK_TREE and gives
# BUILDLINK_API_DEPENDS.x, BUILDLINK_ABI_DEPENDS.x, BUILDLINK_PKGSRCDIR.x and
# BUILDLINK_DEPMETHOD.x (full or build).

.for _b in ${BUILDLINK_TREE:N-*:O:u}
.  for _p in ${BUILDLINK_API_DEPENDS.${_b}:O:u} ${BUILDLINK_ABI_DEPENDS.${_b}:O:u}
.    if ${BUILDLINK_DEPMETHOD.${_b}:Ufull:[1]} == "build"
BUILD_DEPENDS+=	${_p}:${BUILDLINK_PKGSRCDIR.${_b}}
.    else
DEPENDS+=	${_p}:${BUILDLINK_PKGSRCDIR.${_b}}
.    endif
.  endfor
.endfor

# Checksums are compared with the digest program of the tree.
.if (!empty(DISTFILES) || exists(${PATCHDIR})) && ${PKGPATH} != "pkgtools/digest"
BOOTSTRAP_DEPENDS+=	digest>=20010302:../../pkgtools/digest
.endif

_ALL_DEPENDS+=	${BOOTSTRAP_DEPENDS} ${BUILD_DEPENDS} ${TOOL_DEPENDS}
_ALL_DEPENDS+=	${DEPENDS}

# What is done in the directory of a requirement that is not installed. A bulk build says
# /nonexistent, which no directory knows how to make.
DEPENDS_TARGET?=	package-install
_RDEPENDS_FILE=		${WRKDIR}/.rdepends

_RESOLVE=	PKG_INFO=${PKG_INFO:Q} PKG_DBDIR=${PKG_DBDIR:Q} MAKE=${MAKE:Q} \
		DEPENDS_TARGET=${DEPENDS_TARGET:Q} ${_SCRIPTS}/resolve-depends

.PHONY: depends bootstrap-depends _can-be-built-here
_can-be-built-here:
.for _r in FAIL SKIP
.  if !empty(PKG_${_r}_REASON)
	@${ERROR_MSG} "This package has set PKG_${_r}_REASON:"; \
	for reason in ${PKG_${_r}_REASON}; do ${ERROR_MSG} "$$reason"; done; false
.  endif
.endfor

bootstrap-depends: _can-be-built-here
	@${_RESOLVE} /dev/null ${BOOTSTRAP_DEPENDS:@d@bootstrap ${d:Q}@}

depends: bootstrap-depends
.if !exists(${_RDEPENDS_FILE})
	@${PHASE_MSG} "Installing dependencies for ${PKGNAME}"
	@mkdir -p ${WRKDIR}
	@${_RESOLVE} ${_RDEPENDS_FILE} ${BOOTSTRAP_DEPENDS:@d@bootstrap ${d:Q}@} \
	    ${TOOL_DEPENDS:@d@tool ${d:Q}@} ${BUILD_DEPENDS:@d@build ${d:Q}@} \
	    ${DEPENDS:@d@full ${d:Q}@}
.endif
