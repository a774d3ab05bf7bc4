"""Processor time out of the kernel's texts, and of processes that come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deployments.bench.tally import (
    Tally,
    Times,
    busy_ticks,
    own_pids,
    process_times,
    swapped_pages,
)

STAT = (
    b"4321 (a (bad) name) R 77 4321 77 0 -1 4194304 100 0 0 0"
    b" 250 50 7 3 20 0 4 0 998877 1000 200 18446744073709551615"
)


def test_times_of_a_process_whose_name_has_brackets() -> None:
    assert process_times(STAT) == Times(77, 998877, 300, 10)


def test_busy_is_all_but_idle_and_waiting_for_a_disk() -> None:
    """Guests (the last two) are in their user's time already; what was stolen was missing."""
    text = b"cpu  100 20 30 9999 8888 4 5 6 70 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert busy_ticks(text) == 100 + 20 + 30 + 4 + 5 + 6


def test_swapped_pages() -> None:
    assert swapped_pages(b"pgpgin 1\npswpin 30\npswpout 12\npgfree 4\n") == 42
    assert swapped_pages(b"pgpgin 1\npgfree 4\n") is None


# --- a set that changes ---------------------------------------------------------------------------
def test_only_what_grows_from_the_first_look_on_is_counted() -> None:
    tally = Tally()
    tally.add({1: Times(0, 10, 500, 40)}, since=900)
    assert tally.ticks == 0
    tally.add({1: Times(0, 10, 530, 40)}, since=950)
    assert tally.ticks == 30


def test_a_new_process_counts_from_its_beginning_an_older_one_from_now() -> None:
    tally = Tally()
    tally.add({}, since=100)
    tally.add({7: Times(1, 120, 25, 5), 8: Times(1, 50, 900, 0)}, since=110)
    assert tally.ticks == 25 + 5
    tally.add({7: Times(1, 120, 25, 5), 8: Times(1, 50, 910, 0)}, since=130)
    assert tally.ticks == 30 + 10


def test_a_child_that_ended_is_not_counted_twice() -> None:
    parent, child = Times(0, 1, 100, 0), Times(1, 2, 4000, 0)
    tally = Tally()
    tally.add({1: parent, 2: child}, since=10)
    # It took 20 more before it ended; its parent took 1.
    tally.add({1: Times(0, 1, 101, 4020)}, since=20)
    assert tally.ticks == 21


def test_a_child_that_nobody_saw_is_counted() -> None:
    tally = Tally()
    tally.add({1: Times(0, 1, 100, 0)}, since=10)
    tally.add({1: Times(0, 1, 100, 33)}, since=20)
    assert tally.ticks == 33


def test_one_that_ended_elsewhere_takes_nothing_away() -> None:
    tally = Tally()
    tally.add({1: Times(0, 1, 100, 0), 2: Times(5, 2, 4000, 0)}, since=10)
    tally.add({1: Times(0, 1, 110, 0)}, since=20)
    assert tally.ticks == 10


def test_a_pid_that_changed_hands_is_another_process() -> None:
    tally = Tally()
    tally.add({2: Times(0, 5, 100, 0)}, since=10)
    tally.add({2: Times(0, 15, 3, 0)}, since=10)
    assert tally.ticks == 3


@given(st.lists(st.dictionaries(st.integers(1, 5), st.integers(0, 99), max_size=5)))
def test_it_only_grows(looks: list[dict[int, int]]) -> None:
    """Also where the kernel's counts go back."""
    tally = Tally()
    before = 0
    for number, look in enumerate(looks):
        seen = {pid: Times(0, pid, ticks, ticks) for pid, ticks in look.items()}
        tally.add(seen, since=number)
        assert tally.ticks >= before
        before = tally.ticks


# --- whose process it is --------------------------------------------------------------------------
#  1 ─ 10 panel ─ 11 agent ─ 20 runner ─ 21 engine ─ 22 worker
#                          └ 30 runner ─ 31 other engine ─ 32 worker
#    └ 90 browser ─ 91 tab
ENGINES = {20: 11, 21: 20, 22: 21, 30: 11, 31: 30, 32: 31}
TREE = {1: 0, 10: 1, 11: 10, **ENGINES, 90: 1, 91: 90}


def test_a_process_belongs_to_its_nearest_named_ancestor() -> None:
    assert own_pids(TREE, {10}, ()) == set(TREE) - {1, 90, 91}
    assert own_pids(TREE, {10}, {31}) == {10, 11, 20, 21, 22, 30}
    assert own_pids(TREE, {21}, {31}) == {21, 22}
    assert own_pids(TREE, {91, 32}, {31}) == {91, 32}
    assert own_pids(TREE, (), {31}) == set()


def test_processes_that_are_gone_or_in_a_circle_are_nobodys() -> None:
    assert own_pids({5: 4, 6: 5}, {4}, ()) == {5, 6}
    assert own_pids({5: 6, 6: 5, 7: 6}, {3}, ()) == set()
