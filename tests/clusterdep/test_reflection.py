"""Other people's clients: health and reflection."""

from __future__ import annotations

import asyncio

import grpc
from dep_daemon import Daemon
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


async def test_the_services_describe_themselves(dep: Daemon) -> None:
    def look() -> tuple[set[str], set[str], int]:
        with grpc.insecure_channel(f"unix:{dep.state}/clusterdep.sock") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            services = set(database.get_services())
            file = database.FindFileContainingSymbol("clusterdep.v1.Work")
            methods = {m.name for s in file.service for m in s.method}
            health = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="clusterdep.v1.Work"), timeout=5
            )
        return services, methods, health.status

    services, methods, status = await asyncio.to_thread(look)
    assert {f"clusterdep.v1.{name}" for name in ("Feed", "Work", "Query", "Admin")} <= services
    assert "grpc.health.v1.Health" in services
    assert {"Exchange", "PutRecords", "Why", "Backup"} <= methods
    assert status == health_pb2.HealthCheckResponse.SERVING
