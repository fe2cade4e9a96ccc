BUILDLINK_TREE+=	tjson

.if !defined(TJSON_BUILDLINK3_MK)
TJSON_BUILDLINK3_MK:=

BUILDLINK_API_DEPENDS.tjson+=	tjson>=0.8
BUILDLINK_ABI_DEPENDS.tjson+=	tjson>=0.9nb2
BUILDLINK_PKGSRCDIR.tjson?=	../../textproc/tjson

.include "../../devel/libvec/buildlink3.mk"
.endif

BUILDLINK_TREE+=	-tjson
