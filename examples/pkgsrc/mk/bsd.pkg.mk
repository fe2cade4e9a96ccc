# What makes a directory a package: included at the end of its Makefile.
#
# A package sets DISTNAME or PKGNAME, CATEGORIES, MAINTAINER, COMMENT and LICENSE. One with an empty
# DISTFILES has its sources in files/.

.include "bsd.prefs.mk"

# Names.
PKGNAME_NOREV:=	${PKGNAME:U${DISTNAME:U}}
PKGNAME:=	${PKGNAME_NOREV}${PKGREVISION:D${PKGREVISION:N0:S/^/nb/}}
PKGBASE=	${PKGNAME:C/-[^-]*$//}
PKGVERSION=	${PKGNAME:C/^.*-//}
PKGVERSION_NOREV=	${PKGNAME_NOREV:C/^.*-//}

.if defined(META_PACKAGE)
DISTFILES?=	# none
NO_BUILD=	yes
.endif
EXTRACT_SUFX?=	.tar.gz
DISTFILES?=	${DISTNAME}${EXTRACT_SUFX}

# Directories.
.if defined(WRKOBJDIR)
BUILD_DIR=	${WRKOBJDIR}/${PKGPATH}
.else
BUILD_DIR=	${.CURDIR}
.endif
WRKDIR=		${BUILD_DIR}/work
WRKSRC?=	${WRKDIR}/${DISTNAME:U${PKGNAME_NOREV}}
WRKLOG?=	${WRKDIR}/.work.log
DESTDIR=	${WRKDIR}/.destdir
PKGDIR?=	${.CURDIR}
FILESDIR?=	${.CURDIR}/files
PATCHDIR?=	${.CURDIR}/patches
DISTINFO_FILE?=	${.CURDIR}/distinfo
.OBJDIR:	${.CURDIR}
.if ${WRKDIR:[#]} != 1 || ${PKGSRCDIR:[#]} != 1 || ${LOCALBASE:[#]} != 1 || \
    ${DISTDIR:[#]} != 1 || ${PACKAGES:[#]} != 1
.  error No blanks, please, in the names of the tree, WRKOBJDIR, LOCALBASE, DISTDIR and PACKAGES
.endif

PKG_DESTDIR_SUPPORT?=	user-destdir
_USE_DESTDIR=		${PKG_DESTDIR_SUPPORT}

# Why the package cannot, or may not, be built here.
.if empty(PKGNAME)
PKG_FAIL_REASON+=	"PKGNAME and/or DISTNAME are mandatory."
.endif
.for _p in ${NOT_FOR_PLATFORM}
.  if !empty(MACHINE_PLATFORM:M${_p})
PKG_SKIP_REASON+=	"${PKGNAME} is not available for ${MACHINE_PLATFORM}"
.  endif
.endfor
.if defined(BROKEN)
PKG_FAIL_REASON+=	"${PKGNAME} is marked as broken:" ${BROKEN:Q}
.endif
.if defined(LICENSE) && empty(ACCEPTABLE_LICENSES:M${LICENSE})
PKG_FAIL_REASON+=	"${PKGNAME} has an unacceptable license condition: " \
			"    "${LICENSE:Q}
.endif

.include "depends.mk"
.include "build.mk"
.include "package.mk"
.include "pbulk/pbulk-index.mk"

.PHONY: show-var show-vars
show-var:
	@printf '%s\n' ${${VARNAME}:Q}
show-vars:
.for _v in ${VARNAMES}
	@printf '%s\n' ${${_v}:Q}
.endfor
