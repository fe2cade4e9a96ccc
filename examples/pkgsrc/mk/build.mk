# From sources to staged files: fetch, checksum, extract, patch, configure, build, stage-install.
#
# A phase runs what is before it, then pre-, do- and post- targets, which a package may define,
# and leaves a cookie, so that it is not run again.

MAKE_JOBS_SAFE?=	yes
.if defined(MAKE_JOBS) && !empty(MAKE_JOBS_SAFE:M[yY][eE][sS])
_MAKE_JOBS=	-j${MAKE_JOBS}
.endif
MAKE_FLAGS+=	PREFIX=${PREFIX:Q} CC=${CC:Q} CFLAGS=${CFLAGS:Q} CPPFLAGS=${CPPFLAGS:Q} \
		LDFLAGS=${LDFLAGS:Q} SHLIB_LDFLAGS=${SHLIB_LDFLAGS:Q} VERSION=${PKGVERSION_NOREV:Q}
_MAKE_WRKSRC=	cd ${WRKSRC} && ${MAKE} ${MAKE_FLAGS}

.NOTPARALLEL:
.PHONY: all clean fetch checksum
.MAIN: all
all: build

fetch: bootstrap-depends
.for _f in ${DISTFILES}
.  if !exists(${DISTDIR}/${_f})
	@FETCH_CMD=${FETCH_CMD:U:Q} ${_SCRIPTS}/fetch ${DISTDIR:Q} ${_f:Q} ${MASTER_SITES:Q}
.  endif
.endfor

checksum: fetch
.if !empty(DISTFILES)
	@cd ${DISTDIR} && DIGEST=${DIGEST:Q} ${_SCRIPTS}/checksum ${DISTINFO_FILE} ${DISTFILES}
.endif

_BEFORE.extract=	checksum depends
_BEFORE.patch=		extract
_BEFORE.configure=	patch
_BEFORE.build=		configure
_BEFORE.stage-install=	build
_TITLE.extract=		Extracting
_TITLE.patch=		Patching
_TITLE.configure=	Configuring
_TITLE.build=		Building
_TITLE.stage-install=	Installing

.for _t in extract patch configure build stage-install
_HOOK.${_t}=	${_t:S/^stage-//}
_COOKIE.${_t}=	${WRKDIR}/.${_t:S/^stage-//}_done
.PHONY: ${_t} _say-${_t} pre-${_HOOK.${_t}} do-${_HOOK.${_t}} post-${_HOOK.${_t}}
.  if exists(${_COOKIE.${_t}})
${_t}:
	@:
.  else
_STEPS.${_t}=	${_BEFORE.${_t}} _say-${_t} ${_HOOK.${_t}:C/.*/pre-& do-& post-&/}
${_t}: ${_STEPS.${_t}}
.    if ${_t} == "stage-install"
	@chmod -R a+rX,go-w ${DESTDIR}
.    endif
	@echo ${PKGNAME} > ${_COOKIE.${_t}}
.ORDER: ${_STEPS.${_t}}
.  endif
_say-${_t}:
	@${PHASE_MSG} "${_TITLE.${_t}} for ${PKGNAME}"
	@echo "[*] ${_TITLE.${_t}} for ${PKGNAME}" >> ${WRKLOG}
.  if ${_t} == "stage-install"
	@umask 022; mkdir -p ${DESTDIR}${PREFIX} ${INSTALLATION_DIRS:S|^|${DESTDIR}${PREFIX}/|}
.  endif
.  for _h in pre post
.    if !target(${_h}-${_HOOK.${_t}})
${_h}-${_HOOK.${_t}}:
	@:
.    endif
.  endfor
.endfor

.if !target(do-extract)
do-extract:
	@mkdir -p ${WRKSRC}
.  if !empty(DISTFILES)
	@cd ${WRKSRC} && ${_SCRIPTS}/extract ${DISTFILES:@f@${DISTDIR}/${f}@}
.  elif exists(${FILESDIR})
	@cp -R ${FILESDIR}/. ${WRKSRC} && chmod -R u+w ${WRKSRC}
.  endif
.endif

.if !target(do-patch)
do-patch:
.  if exists(${PATCHDIR})
	@cd ${PATCHDIR} && DIGEST=${DIGEST:Q} ${_SCRIPTS}/checksum ${DISTINFO_FILE} patch-*
	@cd ${WRKSRC} && for p in ${PATCHDIR}/patch-*; do \
		${STEP_MSG} "Applying $${p##*/}"; patch -p0 < $$p || exit 1; \
	done
.  endif
.endif

.if !target(do-configure)
do-configure:
.  if defined(HAS_CONFIGURE)
	@cd ${WRKSRC} && CC=${CC:Q} CFLAGS=${CFLAGS:Q} CPPFLAGS=${CPPFLAGS:Q} \
	    LDFLAGS=${LDFLAGS:Q} ${SH} ./configure --prefix=${PREFIX:Q} ${CONFIGURE_ARGS}
.  endif
.endif

.if !target(do-build)
do-build:
.  if !defined(NO_BUILD)
	@${_MAKE_WRKSRC} ${_MAKE_JOBS} all
.  endif
.endif

.if !target(do-install)
do-install:
.  if !defined(META_PACKAGE)
	@umask 022; ${_MAKE_WRKSRC} DESTDIR=${DESTDIR:Q} install
.  endif
.endif

# Users and groups a package wants before its USERGROUP_PHASE. None are made by this tree: they
# have to be there.
.PHONY: create-usergroup
create-usergroup:
	@${STEP_MSG} "Requiring users and groups for ${PKGNAME}"
.for _u in ${PKG_USERS:C/:.*//}
	@id ${_u} > /dev/null || { ${ERROR_MSG} "The user ${_u} does not exist."; exit 1; }
.endfor

clean:
	@${PHASE_MSG} "Cleaning for ${PKGNAME}"
	@rm -rf ${WRKDIR:Q}
.if defined(WRKOBJDIR)
	@rmdir ${BUILD_DIR:Q} 2> /dev/null || true
.endif
