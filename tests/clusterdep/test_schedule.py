"""Who gets what: matching, and the queue of open jobs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clusterdep.core.schedule import Job, Offer, Platform, ReadyQueue, match, refusal

ANY = Platform()


def job(number: int, pkgpath: str = "", platform: Platform = ANY) -> Job:
    return Job("p", number, pkgpath or f"c/p{number}", platform)


def offer(host: str, free: int, slots: int = 4, **more: object) -> Offer:
    return Offer("d", host, slots, free, more.pop("ready", True), **more)  # type: ignore[arg-type]


def test_the_most_urgent_job_goes_to_the_least_loaded_host() -> None:
    grants = match([job(1), job(2), job(3)], [offer("a", 1), offer("b", 4)], ())
    assert [(j.package, o.host) for j, o in grants] == [(1, "b"), (2, "b"), (3, "b")]


def test_never_more_than_free_slots() -> None:
    grants = match([job(n) for n in range(10)], [offer("a", 2), offer("b", 1)], ())
    assert sorted(o.host for _, o in grants) == ["a", "a", "b"]


def test_variants_of_one_pkgpath_are_never_built_at_once() -> None:
    jobs = [job(1, "c/x"), job(2, "c/x"), job(3, "c/y")]
    assert [j.package for j, _ in match(jobs, [offer("a", 4)], ())] == [1, 3]
    assert [j.package for j, _ in match(jobs, [offer("a", 4)], {("p", "c/x")})] == [3]


def test_matching_is_two_sided() -> None:
    netbsd = Platform("NetBSD", "10.1", "x86_64")
    wrong = offer("linux", 4, platform=Platform("Linux", "6.1", "x86_64"))
    right = offer("netbsd", 4, platform=netbsd)
    other = offer("busy", 4, platform=netbsd, profiles=frozenset({"q"}))
    grants = match([job(1, platform=netbsd)], [wrong, other, right], ())
    assert [o.host for _, o in grants] == ["netbsd"]
    assert refusal(job(1, platform=netbsd), wrong) == "opsys is Linux, and NetBSD is wanted"
    assert refusal(job(1, platform=netbsd), other) == "is not prepared for profile p"


def test_a_host_that_is_not_ready_gets_nothing_and_says_why() -> None:
    away = offer("away", 4, ready=False, reason="no answer for 31 s")
    assert match([job(1)], [away], ()) == []
    assert refusal(job(1), away) == "no answer for 31 s"
    assert refusal(job(1), away.at_best()) == ""


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 15))))
def test_the_queue_is_sorted_whatever_came_and_went(steps: list[tuple[bool, int]]) -> None:
    queue = ReadyQueue(lambda package: (float(package % 4), float(package)))
    members: set[int] = set()
    for add, package in steps:
        if add:
            queue.add(package)
            members.add(package)
        else:
            queue.discard(package)
            members.discard(package)
        wanted = sorted(members, key=lambda p: (p % 4, p))
        assert next(iter(queue), None) == (wanted[0] if wanted else None)
        assert list(queue) == wanted
        assert len(queue) == len(members)
