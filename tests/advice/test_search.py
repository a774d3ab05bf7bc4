"""The search over sets of layouts finds what trying every set finds."""

from __future__ import annotations

import itertools
from dataclasses import replace
from random import Random

import pytest

from deployments.advice.purposes import Purpose
from deployments.advice.search import (
    Candidate,
    Task,
    best,
    without_dominated,
)
from deployments.advice.seconds import request_seconds

GIB = 1 << 30
DEVICES = ("CUDA0", "CUDA1", "RPC0", "CPU")


def random_task(seed: int) -> Task:
    """Up to four purposes, some of which could share deployments, on up to four devices."""
    random = Random(seed)
    devices = DEVICES[: random.randint(1, 4)]
    pool = [random_candidate(random, number, devices) for number in range(8)]
    purposes = tuple(
        Purpose(
            f"purpose-{number}",
            ("model",),
            users=random.choice([1, 1, 4]),
            prompt_tokens=random.choice([100, 4000]),
            answer_tokens=random.choice([50, 1000]),
            weight=random.choice([0.5, 1.0, 3.0]),
        )
        for number in range(random.randint(1, 4))
    )
    candidates = tuple(
        tuple(random.sample(pool, random.randint(0, 5))) for _ in purposes
    )
    rooms = {name: random.randint(4, 40) * GIB for name in devices}
    return Task(purposes, candidates, rooms)


def random_candidate(
    random: Random, number: int, devices: tuple[str, ...]
) -> Candidate:
    used = random.sample(devices, random.randint(1, len(devices)))
    return Candidate(
        f"deployment-{number}",
        prefill_tps=random.uniform(50, 5000),
        decode_tps=random.uniform(2, 200),
        needs={name: random.randint(1, 30) * GIB for name in used},
        works_on=frozenset(used),
        alone=frozenset(name for name in used if name == "RPC0"),
        kind=random.choice(["", "one", "two"]),
        places=random.choice([1, 4, 16]),
        handicap=random.choice([1.0, 1.1]),
    )


def by_brute_force(task: Task) -> list[float]:
    choices = itertools.product(*((*some, None) for some in task.candidates))
    cheapest: dict[tuple[str, ...], float] = {}
    for choice in choices:
        if task.load(choice) is None:
            continue
        kinds = tuple(each.kind or each.key if each else "" for each in choice)
        cheapest[kinds] = min(task.cost(choice), cheapest.get(kinds, float("inf")))
    return sorted(cheapest.values())


@pytest.mark.parametrize("seed", range(200))
def test_the_search_finds_what_trying_everything_finds(seed: int) -> None:
    task = random_task(seed)
    every = by_brute_force(task)

    found = best(task, 5)

    assert [each.cost for each in found] == pytest.approx(every[:5])
    for each in found:
        assert task.load(each.choice) is not None
        assert each.cost == pytest.approx(task.cost(each.choice))


@pytest.mark.parametrize("seed", range(200))
def test_nothing_is_lost_with_layouts_that_others_are_better_than(seed: int) -> None:
    task = random_task(seed)
    fewer = without_dominated(task)
    assert all(
        {each.key for each in kept} <= {each.key for each in all_of_them}
        for kept, all_of_them in zip(fewer.candidates, task.candidates, strict=True)
    )
    found = [each.cost for each in best(fewer, 5)]
    assert found == pytest.approx([each.cost for each in best(task, 5)])


CODING, CHAT = Purpose("coding", ("coder",)), Purpose("chat", ("coder",))


def on(device: str, gib: int, decode: float, key: str = "") -> Candidate:
    return Candidate(
        key or f"{device}-{decode}",
        1000,
        decode,
        {device: gib * GIB},
        frozenset({device}),
    )


def test_two_purposes_go_to_two_devices_rather_than_share_one() -> None:
    both = (on("CUDA0", 10, 100), on("CUDA1", 10, 90))
    task = Task((CODING, CHAT), (both, both), {"CUDA0": 40 * GIB, "CUDA1": 40 * GIB})
    chosen = {each.key for each in best(task, 1)[0].choice if each}
    assert chosen == {"CUDA0-100", "CUDA1-90"}


def test_a_deployment_that_two_purposes_share_takes_its_memory_once() -> None:
    one = replace(on("CUDA0", 30, 100, "shared"), places=2)
    task = Task((CODING, CHAT), ((one,), (one,)), {"CUDA0": 40 * GIB})
    found = best(task, 1)[0]
    assert found.choice == (one, one)
    shared, alone = (
        task.rates(found.choice)[0],
        Task((CODING,), ((one,),), task.rooms).rates((one,))[0],
    )
    assert shared and alone and (shared.users, alone.users) == (2, 1)
    assert request_seconds(CODING, shared) > request_seconds(CODING, alone)


def test_a_deployment_serves_no_more_users_at_once_than_it_has_places() -> None:
    one = on("CUDA0", 10, 100, "one place")
    task = Task((CODING, CHAT), ((one,), (one,)), {"CUDA0": 40 * GIB})
    assert sorted(map(bool, best(task, 1)[0].choice)) == [False, True]


def test_a_private_layout_is_kept_beside_a_better_one_that_others_share() -> None:
    first = Purpose("a", ("m",), prompt_tokens=4000, answer_tokens=50, weight=3)
    second = Purpose("b", ("m",), users=4, prompt_tokens=4000, weight=0.5)
    shared = replace(on("CUDA0", 10, 50, "shared"), places=8)
    own = on("CUDA0", 10, 49, "own")
    task = Task((first, second), ((shared, own), (shared,)), {"CUDA0": 40 * GIB})
    (found,) = best(without_dominated(task), 1)
    assert found.cost == pytest.approx(by_brute_force(task)[0])


def test_what_is_not_sure_counts_for_less_and_keeps_its_figures() -> None:
    plain, other = on("CUDA0", 10, 100), on("CUDA1", 10, 105)
    unsure = replace(other, handicap=1.1)
    rooms = {"CUDA0": 40 * GIB, "CUDA1": 40 * GIB}
    assert best(Task((CODING,), ((plain, other),), rooms), 1)[0].choice == (other,)
    task = Task((CODING,), ((plain, unsure),), rooms)
    assert best(task, 1)[0].choice == (plain,)
    (rates,) = task.rates((unsure,))
    assert rates and rates.decode_tps == 105


def test_what_has_no_room_stays_unserved_and_the_lighter_purpose_is_left() -> None:
    light = Purpose("light", ("m",), weight=0.5)
    task = Task(
        (light, CODING),
        ((on("CUDA0", 30, 100),), (on("CUDA0", 31, 50),)),
        {"CUDA0": 40 * GIB},
    )
    served = best(task, 1)[0].choice
    assert served[0] is None and served[1] is not None
