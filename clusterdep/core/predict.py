"""Seconds a build will take, from what builds have taken."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

#: What a build is thought to take before any was seen, seconds.
UNKNOWN = 60.0
#: How much the newest of several builds of one package counts.
NEWEST = 0.6


def learn(history: Iterable[tuple[int, float]]) -> dict[int, float]:
    """Predicted seconds per package from (package, seconds) of builds, oldest first.

    The newest counts most: an exponential mean. Builds that took no time say nothing.
    """
    means: dict[int, float] = {}
    for package, seconds in history:
        if seconds <= 0:
            continue
        before = means.get(package)
        means[package] = seconds if before is None else before + NEWEST * (seconds - before)
    return means


def unknown(known: Mapping[int, float]) -> float:
    """What a package never built is thought to take: on the long side of those that were."""
    if len(known) < 4:
        return max((UNKNOWN, *known.values()))
    return statistics.quantiles(known.values(), n=4)[2]
