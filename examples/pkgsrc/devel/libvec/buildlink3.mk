BUILDLINK_TREE+=	libvec

.if !defined(LIBVEC_BUILDLINK3_MK)
LIBVEC_BUILDLINK3_MK:=

BUILDLINK_API_DEPENDS.libvec+=	libvec>=1.2<2
BUILDLINK_PKGSRCDIR.libvec?=	../../devel/libvec
.endif

BUILDLINK_TREE+=	-libvec
