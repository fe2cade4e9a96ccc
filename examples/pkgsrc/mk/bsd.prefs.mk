# The platform, the user's settings and the places they give. A package includes this when it
# wants to ask about them before the end of its Makefile.

.if !defined(BSD_PREFS_MK)
BSD_PREFS_MK=	yes
BSD_PKG_MK=	1

MAKECONF?=	/etc/mk.conf
.-include "${MAKECONF}"

# The platform: OPSYS-OS_VERSION-MACHINE_ARCH.
_UNAME!=	uname -s -r -m
OPSYS?=		${_UNAME:[1]}
OS_VERSION?=	${_UNAME:[2]:C/[-_].*$//}
.if ${OPSYS} != "NetBSD"
MACHINE_ARCH=	${_UNAME:[3]:S/^amd64$/x86_64/}
.endif
MACHINE_PLATFORM=	${OPSYS}-${OS_VERSION}-${MACHINE_ARCH}

# Places.
PKGPATH=	${.CURDIR:H:T}/${.CURDIR:T}
PKGSRCDIR=	${.CURDIR:H:H}
LOCALBASE?=	/usr/pkg
PREFIX=		${LOCALBASE}
PKG_DBDIR?=	${LOCALBASE}/pkgdb
PKG_TOOLS_BIN?=	${LOCALBASE}/sbin
PACKAGES?=	${PKGSRCDIR}/packages
DISTDIR?=	${PKGSRCDIR}/distfiles
# Where the distfiles of this tree come from when DISTDIR is another directory.
MASTER_SITE_LOCAL?=	file://${PKGSRCDIR}/distfiles/

# Programs and flags.
PKG_ADD=	${PKG_TOOLS_BIN}/pkg_add
PKG_CREATE=	${PKG_TOOLS_BIN}/pkg_create
PKG_INFO=	${PKG_TOOLS_BIN}/pkg_info
PKG_ADMIN=	${PKG_TOOLS_BIN}/pkg_admin
DIGEST=		${LOCALBASE}/bin/digest
SH=		/bin/sh
CC?=		cc
# No debugging information: it would tell in which work directory something was built.
CFLAGS:=	-O2 ${CFLAGS:N-g}
CPPFLAGS+=	-I${LOCALBASE}/include
LDFLAGS+=	-L${LOCALBASE}/lib -Wl,-rpath,${LOCALBASE}/lib
.if ${OPSYS} == "Darwin"
SHLIB_LDFLAGS?=	-dynamiclib -install_name ${PREFIX}/lib/
.else
SHLIB_LDFLAGS?=	-shared -Wl,-soname,
.endif

PHASE_MSG=	echo "===>"
STEP_MSG=	echo "=>"
ERROR_MSG=	echo 1>&2 "ERROR:"
_SCRIPTS=	${SH} ${PKGSRCDIR}/mk/scripts

DEFAULT_ACCEPTABLE_LICENSES=	2-clause-bsd modified-bsd isc mit public-domain
ACCEPTABLE_LICENSES+=		${DEFAULT_ACCEPTABLE_LICENSES}

.endif
