# From staged files to a package file.

PKG_SUFX=	.tgz
PKGREPOSITORY=	${PACKAGES}/All
PKGFILE=	${PKGREPOSITORY}/${PKGNAME}${PKG_SUFX}
STAGE_PKGFILE=	${WRKDIR}/.packages/${PKGNAME}${PKG_SUFX}

.if defined(META_PACKAGE)
PLIST_SRC?=	# empty
.else
PLIST_SRC?=	${PKGDIR}/PLIST
.endif
DESCR_SRC?=	${PKGDIR}/DESCR
PLIST_SUBST+=	PKGNAME=${PKGNAME} PKGBASE=${PKGBASE} PKGVERSION=${PKGVERSION_NOREV}

_METADATA=	${WRKDIR}/.pkgdb
BUILD_DEFS+=	PKGPATH OPSYS OS_VERSION MACHINE_ARCH LICENSE RESTRICTED NO_BIN_ON_FTP LOCALBASE \
		CFLAGS CPPFLAGS LDFLAGS CATEGORIES MAINTAINER HOMEPAGE

.PHONY: package stage-package-create package-install install _metadata
.if exists(${STAGE_PKGFILE})
stage-package-create:
	@:
.else
stage-package-create: stage-install _metadata
	@${STEP_MSG} "Creating binary package ${STAGE_PKGFILE}"
	@mkdir -p ${STAGE_PKGFILE:H}
	@cd ${_METADATA} && ${PKG_CREATE} -l -U -B ${_METADATA}/+BUILD_INFO \
	    -b ${_METADATA}/+BUILD_VERSION -c ${_METADATA}/+COMMENT -d ${_METADATA}/+DESC \
	    ${PKG_PRESERVE:D-n ${_METADATA}/+PRESERVE} -f ${_METADATA}/PLIST \
	    -S ${_METADATA}/+SIZE_ALL -s ${_METADATA}/+SIZE_PKG \
	    ${CONFLICTS:D-C ${CONFLICTS:Q}} -F gzip -I ${PREFIX} -p ${DESTDIR}${PREFIX} \
	    -u root -g root ${STAGE_PKGFILE:S/${PKG_SUFX}$/.tmp${PKG_SUFX}/}
	@mv ${STAGE_PKGFILE:S/${PKG_SUFX}$/.tmp${PKG_SUFX}/} ${STAGE_PKGFILE}
.endif

_metadata: stage-install
	@mkdir -p ${_METADATA}
	@{ ${BUILD_DEFS:O:u:@v@${${v}:Decho ${v}=${${v}:Q};}@} \
	    echo PKGTOOLS_VERSION=20091115; date -u '+BUILD_DATE=%Y-%m-%d %H:%M:%S +0000'; \
	    echo "BUILD_HOST=`uname -a`"; } > ${_METADATA}/+BUILD_INFO
	@printf '%s\n' ${COMMENT:Q} > ${_METADATA}/+COMMENT
	@cat ${DESCR_SRC} > ${_METADATA}/+DESC
.if defined(HOMEPAGE)
	@printf '\nHomepage:\n%s\n' ${HOMEPAGE:Q} >> ${_METADATA}/+DESC
.endif
.if defined(PKG_PRESERVE)
	@date > ${_METADATA}/+PRESERVE
.endif
	@cat /dev/null ${PLIST_SRC} | \
	    sed ${PLIST_SUBST:@v@-e 's|$${${v:C/=.*//}}|${v:C/^[^=]*=//}|g'@} > ${_METADATA}/.PLIST
	@cd ${.CURDIR} && PKGNAME=${PKGNAME:Q} PREFIX=${PREFIX:Q} DESTDIR=${DESTDIR:Q} \
	    PKGPATH=${PKGPATH:Q} PKGSRCDIR=${PKGSRCDIR:Q} PKG_ADMIN=${PKG_ADMIN:Q} \
	    PKG_INFO=${PKG_INFO:Q} PKG_DBDIR=${PKG_DBDIR:Q} \
	    ${_SCRIPTS}/metadata ${_METADATA} ${_RDEPENDS_FILE} ${FILESDIR} ${PATCHDIR}

package: stage-package-create
	@${STEP_MSG} "Creating binary package ${PKGFILE}"
	@mkdir -p ${PKGREPOSITORY}
	@ln -f ${STAGE_PKGFILE} ${PKGFILE} 2> /dev/null || cp -p ${STAGE_PKGFILE} ${PKGFILE}

package-install install: package
	@${PHASE_MSG} "Installing binary package of ${PKGNAME}"
	@PKG_PATH=${PKGREPOSITORY} ${PKG_ADD} -K ${PKG_DBDIR} ${PKGFILE}
