BUILDLINK_TREE+=	libpix

.if !defined(LIBPIX_BUILDLINK3_MK)
LIBPIX_BUILDLINK3_MK:=

BUILDLINK_API_DEPENDS.libpix+=	libpix>=3.0
BUILDLINK_PKGSRCDIR.libpix?=	../../graphics/libpix
.endif

BUILDLINK_TREE+=	-libpix
