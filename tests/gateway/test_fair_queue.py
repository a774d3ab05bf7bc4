"""Who is next in a queue, where everybody stands, how many may pass, and when to ask again: tables
of pure decisions."""

from __future__ import annotations

import pytest

from deployments.gateway.fair_queue import (
    LATEST_RETRY_S,
    SOONEST_RETRY_S,
    USUAL_LOAD_S,
    FairQueue,
    LoadTimes,
    most_inside,
)
from deployments.gateway.waking import times_of


def queue_of(items: str) -> FairQueue[str]:
    """'a1 b1' are items of the keys a and b, in order of arrival."""
    made: FairQueue[str] = FairQueue()
    for item in items.split():
        made.join(item, item[0])
    return made


def taken(queue: FairQueue[str]) -> str:
    out = []
    while item := queue.next():
        out.append(item)
    return " ".join(out)


ORDERS = {
    "nobody": ("", ""),
    "one key: order of arrival": ("a1 a2 a3", "a1 a2 a3"),
    "two keys take turns": ("a1 a2 a3 b1", "a1 b1 a2 a3"),
    "a key whose turn has passed stands last": ("a1 a2 b1 b2 c1", "a1 b1 c1 a2 b2"),
    "a late key waits for one of each": ("a1 a2 a3 b1 b2 b3 c1", "a1 b1 c1 a2 b2 a3 b3"),
}  # fmt: skip


@pytest.mark.parametrize(("items", "order"), ORDERS.values(), ids=list(ORDERS))
def test_items_are_taken_by_turns_between_keys(items: str, order: str) -> None:
    assert taken(queue_of(items)) == order


@pytest.mark.parametrize(("items", "order"), ORDERS.values(), ids=list(ORDERS))
def test_a_position_says_when_an_item_is_taken(items: str, order: str) -> None:
    queue = queue_of(items)
    for gone in range(len(order.split())):
        positions = {item: queue.position(item) for item in queue}
        assert positions == {
            item: place for place, item in enumerate(order.split()[gone:], 1)
        }
        queue.next()


def test_one_of_a_key_passes_after_one_of_two_hundred_of_another() -> None:
    queue = queue_of(" ".join(f"a{number}" for number in range(200)))
    queue.join("b0", "b")
    assert queue.position("b0") == 2
    assert [queue.next(), queue.next()] == ["a0", "b0"]


def test_who_was_taken_and_could_not_pass_keeps_its_place() -> None:
    queue = queue_of("a1 a2 b1 b2")
    first, second = queue.next(), queue.next()
    assert (first, second) == ("a1", "b1")
    queue.put_back("b1")
    queue.put_back("a1")
    queue.join("c1", "c")
    assert [queue.position(item) for item in ("a1", "b1", "a2", "c1")] == [1, 2, 3, 5]
    assert taken(queue) == "a1 b1 a2 b2 c1"


def test_who_leaves_is_passed_over() -> None:
    queue = queue_of("a1 a2 b1")
    for item in ("a1", "b1", "never there"):
        queue.leave(item)
    assert len(queue) == 1 and queue.position("a1") == 0
    assert taken(queue) == "a2"


def test_who_leaves_after_it_was_put_back_is_gone() -> None:
    queue = queue_of("a1 a2")
    queue.next()
    queue.put_back("a1")
    queue.leave("a1")
    assert taken(queue) == "a2" and len(queue) == 0


@pytest.mark.parametrize(
    ("slots", "stages", "most"),
    [(0, 1, None), (1, 1, 3), (4, 1, 6), (16, 1, 20), (2, 2, 6)],
)
def test_an_engine_gets_a_few_more_than_it_has_slots(
    slots: int, stages: int, most: int | None
) -> None:
    assert most_inside(slots, stages) == most


@pytest.mark.parametrize(
    ("loads", "now_s", "percent"),
    [
        (LoadTimes(), 5.0, None),
        (LoadTimes([10.0]), 5.0, None),
        (LoadTimes([], began_s=0.0), 5.0, None),
        (LoadTimes([10.0], began_s=1.0), 5.0, 40),
        (LoadTimes([10.0, 20.0, 300.0], began_s=0.0), 5.0, 25),
        (LoadTimes([10.0], began_s=0.0), 60.0, 99),
        (LoadTimes([10.0], began_s=9.0), 5.0, 0),
    ],
)
def test_how_far_a_load_is_goes_by_those_before(
    loads: LoadTimes, now_s: float, percent: int | None
) -> None:
    assert loads.percent(now_s) == percent


@pytest.mark.parametrize(
    ("loads", "is_ready", "after_s"),
    [
        (LoadTimes([40.0]), True, SOONEST_RETRY_S),
        (LoadTimes(), False, USUAL_LOAD_S),
        (LoadTimes([40.0]), False, 40),
        (LoadTimes([40.0], began_s=90.5), False, 31),
        (LoadTimes([40.0], began_s=10.0), False, SOONEST_RETRY_S),
        (LoadTimes([1e6]), False, LATEST_RETRY_S),
    ],
)
def test_when_to_ask_again_is_when_it_will_be_loaded(
    loads: LoadTimes, is_ready: bool, after_s: float
) -> None:
    assert loads.retry_after_s(100.0, is_ready=is_ready) == after_s


CHANGES = {
    "nothing": ([], LoadTimes([])),
    "it was loaded once": (
        [(1, 0.0, "starting"), (1, 1.0, "loading"), (1, 9.0, "ready")],
        LoadTimes([8.0]),
    ),
    "it loads": (
        [(1, 1.0, "loading"), (1, 9.0, "ready"), (1, 10.0, "stopping"), (1, 20.0, "loading")],
        LoadTimes([8.0], 20.0),
    ),
    "a load that failed is none": (
        [(1, 1.0, "loading"), (1, 9.0, "failed"), (1, 20.0, "loading"), (1, 23.0, "ready")],
        LoadTimes([3.0]),
    ),
    "two instances, one still loads": (
        [(1, 1.0, "loading"), (2, 2.0, "loading"), (1, 9.0, "ready")],
        LoadTimes([8.0], 2.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "loads"), CHANGES.values(), ids=list(CHANGES))
def test_load_times_are_read_off_the_changes_of_state(
    changes: list[tuple[int, float, str]], loads: LoadTimes
) -> None:
    assert times_of(changes) == loads
