"""Who may call what: each rpc of both daemons and the role it needs, in one table.

A role may do what is said of it and everything the roles before it may. What is not in
the table may be called by nobody.
"""

from __future__ import annotations

VIEWER = "viewer"  # sees everything but tokens, changes nothing
FEEDER = "feeder"  # and brings records: scans, commit hooks
BUILDER = "builder"  # and takes jobs and delivers their results: dispatchers
ADMIN = "admin"  # and gives orders, and lets others in

#: All roles; each includes those before it.
ROLES = (VIEWER, FEEDER, BUILDER, ADMIN)

#: The role that each rpc needs, by the name it has on the wire.
NEEDED: dict[str, str] = {
    "/clusterdep.v1.Feed/PutRecords": FEEDER,
    "/clusterdep.v1.Feed/TreeChanged": FEEDER,
    "/clusterdep.v1.Feed/DeclareArtifacts": BUILDER,
    "/clusterdep.v1.Feed/TakeOver": BUILDER,
    "/clusterdep.v1.Work/Exchange": BUILDER,
    "/clusterdep.v1.Work/ListLeases": BUILDER,
    "/clusterdep.v1.Work/WatchTokens": BUILDER,
    "/clusterdep.v1.Query/ListProfiles": VIEWER,
    "/clusterdep.v1.Query/Summary": VIEWER,
    "/clusterdep.v1.Query/ListOpenJobs": VIEWER,
    "/clusterdep.v1.Query/ListPkgpaths": VIEWER,
    "/clusterdep.v1.Query/ListPackages": VIEWER,
    "/clusterdep.v1.Query/GetPackage": VIEWER,
    "/clusterdep.v1.Query/Requires": VIEWER,
    "/clusterdep.v1.Query/RequiredBy": VIEWER,
    "/clusterdep.v1.Query/Why": VIEWER,
    "/clusterdep.v1.Query/History": VIEWER,
    "/clusterdep.v1.Query/Search": VIEWER,
    "/clusterdep.v1.Query/Breaks": VIEWER,
    "/clusterdep.v1.Query/ListArtifacts": VIEWER,
    "/clusterdep.v1.Query/Watch": VIEWER,
    "/clusterdep.v1.Admin/PutProfile": ADMIN,
    "/clusterdep.v1.Admin/Select": ADMIN,
    "/clusterdep.v1.Admin/Retry": ADMIN,
    "/clusterdep.v1.Admin/Hold": ADMIN,
    "/clusterdep.v1.Admin/Rebuild": ADMIN,
    "/clusterdep.v1.Admin/Rescan": ADMIN,
    "/clusterdep.v1.Admin/Forget": ADMIN,
    "/clusterdep.v1.Admin/Prune": ADMIN,
    "/clusterdep.v1.Admin/Compact": ADMIN,
    "/clusterdep.v1.Admin/CheckDatabase": ADMIN,
    "/clusterdep.v1.Admin/Backup": ADMIN,
    "/clusterdep.v1.Admin/AddToken": ADMIN,
    "/clusterdep.v1.Admin/ListTokens": ADMIN,
    "/clusterdep.v1.Admin/RevokeToken": ADMIN,
    "/clusterbuild.v1.Status/Get": VIEWER,
    "/clusterbuild.v1.Logs/Read": VIEWER,
    "/clusterbuild.v1.Control/Stop": ADMIN,
    "/clusterbuild.v1.Control/Resume": ADMIN,
    "/clusterbuild.v1.Control/Import": ADMIN,
    "/grpc.health.v1.Health/Check": VIEWER,
    "/grpc.health.v1.Health/List": VIEWER,
    "/grpc.health.v1.Health/Watch": VIEWER,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": VIEWER,
}


def includes(role: str, needed: str) -> bool:
    """Whether a caller with `role` may do what needs `needed`."""
    return role in ROLES and needed in ROLES and ROLES.index(role) >= ROLES.index(needed)
