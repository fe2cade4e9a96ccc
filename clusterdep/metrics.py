"""/metrics of clusterdep: states, leases, scan failures, for Prometheus."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterdep.api.errors import Fault, Kind
from clusterdep.core.status import Status
from clusterdep.ledger import Ledger
from clusterdep.questions import Questions

#: How long a reading may take, seconds.
SECONDS = 10.0


class Metrics(Collector):
    """What is counted when somebody asks; nothing is kept twice."""

    def __init__(self, ledger: Ledger, questions: Questions, refused: Mapping[str, int]) -> None:
        """`refused` counts the calls that were not let in, by why."""
        self._refused = refused
        self._ledger = ledger
        self._questions = questions
        self._registry = CollectorRegistry()
        self._loop = asyncio.get_running_loop()

    def collect(self) -> Iterable[Metric]:
        """One reading, made on the event loop: what it reads has one user at a time."""
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(SECONDS)

    async def _read(self) -> list[Metric]:
        packages = GaugeMetricFamily(
            "clusterdep_packages", "Packages by status", labels=("profile", "status")
        )
        needed = GaugeMetricFamily(
            "clusterdep_needed_packages",
            "Packages that are selected or required by something selected, by status",
            labels=("profile", "status"),
        )
        leases = GaugeMetricFamily("clusterdep_leases", "Leases granted now", labels=("profile",))
        ready = GaugeMetricFamily(
            "clusterdep_open_jobs", "Jobs that could be granted now", labels=("profile",)
        )
        failures = GaugeMetricFamily(
            "clusterdep_scan_failures", "Pkgpaths whose last scan failed", labels=("profile",)
        )
        held = Counter(lease.profile for lease in list(self._ledger.leases))
        for name, catalog in list(self._ledger.catalogs.items()):
            every: Counter[Status] = Counter()
            wanted: Counter[Status] = Counter()
            for package in range(len(catalog.entries)):
                status = catalog.status(package)
                every[status] += 1
                wanted[status] += package in catalog.needed
            for status in Status:
                packages.add_metric((name, status.value), every[status])
                needed.add_metric((name, status.value), wanted[status])
            leases.add_metric((name,), held[name])
            ready.add_metric((name,), len(catalog.ready))
            failures.add_metric((name,), len(catalog.scan_failures))
        events = CounterMetricFamily(
            "clusterdep_events",
            "Events recorded since the database was made",
            self._questions.last_event(),
        )
        refused = CounterMetricFamily(
            "clusterdep_refused_calls", "Calls that were not let in, or ended", labels=("why",)
        )
        for why, count in self._refused.items():
            refused.add_metric((why,), count)
        return [packages, needed, leases, ready, failures, events, refused, *self._file()]

    def _file(self) -> Iterable[Metric]:
        """What is to be said of the database file."""
        store = self._ledger.store
        size, free = store.sizes()
        yield GaugeMetricFamily(
            "clusterdep_writable", "0 while the disk is full", int(not store.stopped)
        )
        yield GaugeMetricFamily(
            "clusterdep_database_bytes", "The database and its write-ahead log", size
        )
        yield GaugeMetricFamily(
            "clusterdep_database_free_bytes", "Of these, what db compact would give back", free
        )
        yield GaugeMetricFamily(
            "clusterdep_disk_free_bytes", "Room on the database's file system", store.room()
        )

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not checked against other collectors, there are none."""
        return []

    def serve(self, address: str) -> Callable[[], None]:
        """Serves at HOST:PORT in a thread; returns what ends it. Raises Fault."""
        # With `describe` empty it is not read when it registers: the loop that answers runs this.
        self._registry.register(self)
        host, _, port = address.rpartition(":")
        try:
            served: tuple[WSGIServer, threading.Thread] = start_http_server(
                int(port), host.strip("[]"), registry=self._registry
            )
        except OSError as error:
            raise Fault(
                Kind.UNAVAILABLE,
                f"metrics can not be served at {address}: {error.strerror}",
                "name another port with 'metrics' in the configuration, or leave it out",
            ) from error
        return served[0].shutdown
