"""/metrics of clusterbuild for Prometheus: hosts, jobs, outcomes, stages, transfers."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from wsgiref.simple_server import WSGIServer

import prometheus_client as prometheus
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from clusterbuild.attempt import Attempt
from clusterbuild.core.hosts import State
from clusterbuild.core.job import Phase
from clusterbuild.core.result import STAGES
from clusterbuild.dispatcher import Dispatcher
from clusterbuild.rules import Connection
from clusterdep.api.errors import Fault, Kind

#: How long a reading may take, seconds.
SECONDS = 10.0
#: Upper bounds of the histogram of stage durations, seconds.
BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 8 * 3600)


class Metrics(Collector):
    """Counts what ends, and reads the rest from the dispatcher when somebody asks."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._loop = asyncio.get_running_loop()
        self._dispatcher: Dispatcher | None = None
        self._connection: Connection | None = None
        self._not_let_in: Mapping[str, int] = {}
        self._builds = prometheus.Counter(
            "clusterbuild_builds",
            "Attempts that ended, by outcome (built, failed, returned) and blame",
            ("outcome", "blame"),
            registry=self.registry,
        )
        self._scans = prometheus.Counter(
            "clusterbuild_scans",
            "Jobs that scanned and ended, by outcome (done, returned)",
            ("outcome",),
            registry=self.registry,
        )
        self._scanned = prometheus.Counter(
            "clusterbuild_scanned_pkgpaths",
            "Pkgpaths that were scanned, well or not",
            registry=self.registry,
        )
        self._stages = prometheus.Histogram(
            "clusterbuild_stage_duration_seconds",
            "Wall time of stages of builds",
            ("stage",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._cpu = prometheus.Counter(
            "clusterbuild_stage_cpu_seconds",
            "User and system time of stages of builds",
            ("stage",),
            registry=self.registry,
        )
        self._fetched = prometheus.Counter(
            "clusterbuild_fetched_bytes",
            "Bytes of package files brought here from hosts",
            registry=self.registry,
        )

    def reported(self, attempt: Attempt) -> None:
        """An attempt is over, and its result is on its way to clusterdep."""
        judgement = attempt.judgement
        if attempt.scan is not None:
            self._scans.labels("returned" if judgement else "done").inc()
            self._scanned.inc(attempt.scan.answered)
            return
        if judgement is None:
            outcome, blame = "built", "none"
        else:
            blame = judgement.blame.value
            outcome = "failed" if blame == "package" else "returned"
        self._builds.labels(outcome, blame).inc()
        if attempt.kept is not None:
            self._fetched.inc(attempt.kept.size)
        for time in attempt.result.stages if attempt.result is not None else ():
            if time.stage in STAGES:
                self._stages.labels(time.stage).observe(time.wall)
                self._cpu.labels(time.stage).inc(max(0.0, time.cpu))

    # -- read when asked -----------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are not checked against other collectors, there are none."""
        return []

    def collect(self) -> Iterable[Metric]:
        """One reading, made on the event loop: what it reads has one user at a time."""
        return asyncio.run_coroutine_threadsafe(self._read(), self._loop).result(SECONDS)

    async def _read(self) -> list[Metric]:
        if self._dispatcher is None or self._connection is None:
            return []
        return [
            *_hosts(self._dispatcher),
            *_jobs(self._dispatcher),
            *_talk(self._connection),
            _refused(self._not_let_in),
        ]

    def serve(
        self,
        dispatcher: Dispatcher,
        connection: Connection,
        refused: Mapping[str, int],
        address: str,
    ) -> Callable[[], None]:
        """Serves at HOST:PORT in a thread; returns what ends it. Raises Fault.

        `refused` counts the calls that were not let in, by why.
        """
        self._dispatcher, self._connection = dispatcher, connection
        self._not_let_in = refused
        self.registry.register(self)
        host, _, port = address.rpartition(":")
        try:
            served: tuple[WSGIServer, threading.Thread] = prometheus.start_http_server(
                int(port), host.strip("[]"), registry=self.registry
            )
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise Fault(
                Kind.UNAVAILABLE,
                f"metrics cannot be served at {address}: {reason}",
                "name another port with 'metrics' in the configuration, or leave it out",
            ) from error
        return lambda: _end(*served)


def _end(server: WSGIServer, thread: threading.Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()


def _refused(calls: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(
        "clusterbuild_refused_calls", "Calls that were not let in, or ended", labels=("why",)
    )
    for why, count in calls.items():
        family.add_metric((why,), count)
    return family


def _hosts(dispatcher: Dispatcher) -> list[Metric]:
    states = GaugeMetricFamily("clusterbuild_hosts", "Hosts by state", labels=("state",))
    slots = GaugeMetricFamily("clusterbuild_slots", "Slots of all hosts, by use", labels=("use",))
    disk = GaugeMetricFamily(
        "clusterbuild_host_disk_free_bytes", "Free space where a host builds", labels=("host",)
    )
    count = Counter(host.state for host in dispatcher.hosts.values())
    for state in State:
        states.add_metric((state.value,), count[state])
    slots.add_metric(("busy",), sum(len(host.claims) for host in dispatcher.hosts.values()))
    slots.add_metric(("free",), sum(host.free for host in dispatcher.hosts.values()))
    for name, facts in dispatcher.facts.items():
        disk.add_metric((name,), facts.disk_free)
    return [states, slots, disk]


def _jobs(dispatcher: Dispatcher) -> list[Metric]:
    jobs = GaugeMetricFamily("clusterbuild_jobs", "Attempts in hand, by phase", labels=("phase",))
    phases = Counter(attempt.phase for attempt in dispatcher.attempts.values())
    for phase in Phase:
        if phase is not Phase.DONE:
            jobs.add_metric((phase.value,), phases[phase])
    trouble = GaugeMetricFamily(
        "clusterbuild_storage_trouble",
        "1 if the dispatcher cannot keep artifacts, and takes no work",
        float(bool(dispatcher.trouble)),
    )
    stopping = GaugeMetricFamily(
        "clusterbuild_stopping", "1 if it was told to take no work", float(dispatcher.stopping)
    )
    refused = CounterMetricFamily(
        "clusterbuild_refused_results",
        "Results that clusterdep refused, because another lease had replaced theirs",
        dispatcher.tally.refused,
    )
    faults = CounterMetricFamily(
        "clusterbuild_internal_errors", "Faults of the program itself", dispatcher.tally.illegal
    )
    return [jobs, trouble, stopping, refused, faults]


def _talk(connection: Connection) -> list[Metric]:
    return [
        GaugeMetricFamily(
            "clusterbuild_connected", "1 if clusterdep answers", float(connection.connected)
        ),
        CounterMetricFamily(
            "clusterbuild_exchanges", "Answers of clusterdep", connection.exchanges
        ),
        CounterMetricFamily(
            "clusterbuild_exchange_errors", "Calls to clusterdep that failed", connection.errors
        ),
    ]
