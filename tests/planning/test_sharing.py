"""Who has to go before a deployment can start."""

from __future__ import annotations

import pytest

from deployments.planning.memory.sharing import Tenant, crowds, rivals

GB = 10**9
TOTALS = {"CUDA0": 96 * GB, "CUDA1": 32 * GB, "odd": None}
CODER = Tenant("coder", needs={"CUDA1": 20 * GB})
REASONER = Tenant("reasoner", needs={"CUDA0": 70 * GB, "CUDA1": 4 * GB})
SMALL = Tenant("small", needs={"CUDA1": 6 * GB})


CASES = {
    "it fits beside the others": ({"CUDA1": 2 * GB}, []),
    "the smallest that frees enough goes": ({"CUDA1": 5 * GB}, ["reasoner"]),
    "only the largest frees enough": ({"CUDA1": 16 * GB}, ["coder"]),
    "more than one has to go": ({"CUDA1": 27 * GB}, ["coder", "small"]),
    "it is too large for the empty card, which is nobody's fault": (
        {"CUDA1": 40 * GB},
        [],
    ),
    "how large the device is nobody knows": ({"odd": 400 * GB}, []),
    "who goes for one card is gone from the other": (
        {"CUDA0": 40 * GB, "CUDA1": 20 * GB},
        ["reasoner", "coder"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_as_few_go_as_will_do(case: str) -> None:
    needs, going = CASES[case]
    assert [
        rival.name
        for rival in rivals(
            Tenant("new", needs=needs), [CODER, REASONER, SMALL], TOTALS
        )
    ] == going


def test_where_nobody_is_nobody_goes() -> None:
    assert rivals(Tenant("new", needs={"CUDA0": 90 * GB}), [], TOTALS) == []


def test_of_a_group_only_one_runs_and_no_group_is_no_group() -> None:
    one, two, other, free = (
        Tenant("one", "card"),
        Tenant("two", "card"),
        Tenant("other", "else"),
        Tenant("free"),
    )
    (rival,) = rivals(one, [two, other, free], {})
    assert rival.name == "two" and "group card" in rival.why
    assert rivals(free, [Tenant("free2"), one], {}) == []


def test_a_server_that_serves_one_engine_is_left_to_one() -> None:
    users = [
        Tenant(name, alone=frozenset(devices))
        for name, devices in (("a", {"RPC0"}), ("b", {"RPC1"}))
    ]
    (rival,) = rivals(Tenant("new", alone=frozenset({"RPC1"})), users, {})
    assert rival.name == "b" and "RPC1" in rival.why


def test_the_reason_names_the_device_and_the_bytes() -> None:
    (rival,) = rivals(Tenant("new", needs={"CUDA1": 16 * GB}), [CODER], TOTALS)
    assert (
        rival.why
        == "it needs 14.9 GiB of the 29.8 GiB on CUDA1, where coder holds 18.6 GiB"
    )


# --- what a rig file asks for at once -------------------------------------------------------------
def tenant(name: str, gb: float, **more: object) -> Tenant:
    return Tenant(name, needs={"CUDA1": int(gb * GB)}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tenants", "names"),
    [
        ([tenant("a", 12), tenant("b", 12)], []),
        ([tenant("a", 12), tenant("b", 12), tenant("c", 12)], ["a", "b", "c"]),
        ([tenant("a", 20), tenant("b", 20, group="turns")], ["a", "b"]),
        ([tenant("a", 20, group="turns"), tenant("b", 20, group="turns")], []),
        (
            [
                tenant("a", 20, group="turns"),
                tenant("b", 25, group="turns"),
                tenant("c", 6),
            ],
            [],
        ),
        (
            [
                tenant("a", 20, group="turns"),
                tenant("b", 30, group="turns"),
                tenant("c", 6),
            ],
            ["b", "c"],
        ),
        ([tenant("a", 20), tenant("b", 20, swaps=True)], []),
        # What does not fit alone is said where it is planned.
        ([tenant("a", 40), tenant("b", 20)], []),
        (
            [
                tenant("a", 1, alone=frozenset({"CUDA1"})),
                tenant("b", 1, alone=frozenset({"CUDA1"})),
            ],
            ["a", "b"],
        ),
        ([tenant("a", 1, alone=frozenset({"CUDA1"}))], []),
    ],
)
def test_what_cannot_run_at_once_is_named(
    tenants: list[Tenant], names: list[str]
) -> None:
    assert [name for crowd in crowds(tenants, TOTALS) for name in crowd.names] == names


def test_a_crowd_says_how_much_is_needed_and_what_would_help() -> None:
    (crowd,) = crowds([tenant("a", 12), tenant("b", 12), tenant("c", 12)], TOTALS)
    assert crowd.text.startswith(
        "Together they need 33.5 GiB of the 29.8 GiB on CUDA1: a 11.2 GiB, b 11.2 GiB and c"
    )
    assert "exclusive_group" in crowd.text and "when_taken: swap" in crowd.text
