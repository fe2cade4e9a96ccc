# For packages that work with either version of recdb.
#
# RECDB_VERSIONS_ACCEPTED	the versions the package can do with (1 2)
# RECDB_VERSION_DEFAULT		the one the user prefers
# RECDB_VERSION_REQD		the one to use, set by a bulk build
# RECDB_VERSION			the one that is used

RECDB_VERSIONS_ACCEPTED?=	1 2
RECDB_VERSION_DEFAULT?=		2
.if defined(RECDB_VERSION_REQD)
RECDB_VERSION=	${RECDB_VERSION_REQD}
.elif !empty(RECDB_VERSIONS_ACCEPTED:M${RECDB_VERSION_DEFAULT})
RECDB_VERSION=	${RECDB_VERSION_DEFAULT}
.else
RECDB_VERSION=	${RECDB_VERSIONS_ACCEPTED:[1]}
.endif
.if empty(RECDB_VERSIONS_ACCEPTED:M${RECDB_VERSION})
PKG_SKIP_REASON+=	"recdb${RECDB_VERSION} is not accepted: wants one of ${RECDB_VERSIONS_ACCEPTED}"
.endif

DEPENDS+=	recdb${RECDB_VERSION}-[0-9]*:../../databases/recdb${RECDB_VERSION}
