BUILDLINK_TREE+=	libsum

.if !defined(LIBSUM_BUILDLINK3_MK)
LIBSUM_BUILDLINK3_MK:=

BUILDLINK_API_DEPENDS.libsum+=	libsum>=2.0
BUILDLINK_ABI_DEPENDS.libsum+=	libsum>=2.1
BUILDLINK_PKGSRCDIR.libsum?=	../../devel/libsum
# A static library: wanted to build with, not to run with.
BUILDLINK_DEPMETHOD.libsum?=	build
.endif

BUILDLINK_TREE+=	-libsum
