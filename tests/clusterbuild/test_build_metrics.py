"""/metrics, read as Prometheus reads it."""

import asyncio
import socket
import urllib.request
from dataclasses import replace

import pytest
from build_fakes import until
from prometheus_client.parser import text_string_to_metric_families

from clusterbuild.core.result import Evidence


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
async def measured(world):
    """The world, with /metrics; and a function that reads them."""
    await world.stop()
    port = free_port()
    world.settings = replace(world.settings, metrics=f"127.0.0.1:{port}")
    await world.start()

    def fetch():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    async def read():
        found = {}
        for family in text_string_to_metric_families(await asyncio.to_thread(fetch)):
            for sample in family.samples:
                labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    world.metrics = read
    return world


async def test_what_is_measured(measured, build):
    good = measured.clusterdep.offer("foo-1.0")
    await until(lambda: measured.host.running("foo-1.0"))
    found = await measured.metrics()
    assert found["clusterbuild_slots{use=busy}"] == 1
    assert found["clusterbuild_slots{use=free}"] == 1
    assert found["clusterbuild_hosts{state=ready}"] == 1
    assert found["clusterbuild_hosts{state=lost}"] == 0
    assert found["clusterbuild_jobs{phase=building}"] == 1
    assert found["clusterbuild_connected"] == 1
    assert found["clusterbuild_stopping"] == 0
    assert found["clusterbuild_host_disk_free_bytes{host=localhost}"] == 2**36
    build(measured.host.of("foo-1.0"))
    size = (await measured.result_of(good)).artifact.size
    for name, evidence in (("bar-1.0", Evidence.EXIT), ("baz-1.0", Evidence.NO_SPACE)):
        grant = measured.clusterdep.offer(name)
        await until(lambda name=name: measured.host.running(name))
        measured.host.fail(measured.host.of(name), evidence)
        await measured.result_of(grant)
    found = await measured.metrics()
    assert found["clusterbuild_builds_total{blame=none,outcome=built}"] == 1
    assert found["clusterbuild_builds_total{blame=package,outcome=failed}"] == 1
    assert found["clusterbuild_builds_total{blame=host,outcome=returned}"] == 1
    assert found["clusterbuild_stage_duration_seconds_count{stage=build}"] == 3
    assert found["clusterbuild_stage_cpu_seconds_total{stage=build}"] == 2.0
    assert found["clusterbuild_fetched_bytes_total"] == size
    assert found["clusterbuild_exchanges_total"] >= 3
    assert found["clusterbuild_internal_errors_total"] == 0
    assert not any("foo" in name for name in found), "never a pkgname"


async def test_names_follow_the_conventions(measured):
    for name in await measured.metrics():
        base = name.partition("{")[0]
        assert base.startswith("clusterbuild_"), base
        assert not base.endswith(("_ms", "_minutes", "_kb", "_mb"))
