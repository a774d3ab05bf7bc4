"""The engine's allocator on sizes alone: small graphs whose peaks can be counted by hand."""

from __future__ import annotations

import pytest

from deployments.planning.memory.allocator import (
    Arena,
    Node,
    assign_backends,
    peaks,
    with_copies,
)
from deployments.planning.memory.graph import Builder

HOST = 1


def peak(builder: Builder, alignment: int = 1) -> list[int]:
    assign_backends(builder.nodes, builder.host)
    return peaks(
        with_copies(builder.nodes), builder.inputs, [alignment] * (builder.host + 1)
    )


def test_the_smallest_hole_that_is_large_enough_is_taken() -> None:
    arena = Arena(1)
    first, second, third, _ = (arena.alloc(size) for size in (10, 1, 6, 1))
    arena.free(first, 10)
    arena.free(third, 6)
    assert arena.alloc(5) == third
    assert arena.alloc(7) == first
    assert arena.peak == 18
    assert second == 10


def test_freed_neighbours_become_one_hole() -> None:
    arena = Arena(1)
    backends = [arena.alloc(4) for _ in range(3)]
    arena.alloc(1)
    for index in (0, 2, 1):
        arena.free(backends[index], 4)
    assert arena.alloc(12) == 0


def test_sizes_are_aligned() -> None:
    arena = Arena(32)
    arena.alloc(1)
    assert arena.alloc(33) == 32
    assert arena.peak == 96


def test_a_tensor_is_given_back_after_its_last_use() -> None:
    g = Builder(0)
    current = g.input("x", 100)
    for _ in range(5):
        current = g.op("step", (25,), current)
    g.expand(current)
    assert peak(g) == [200]


@pytest.mark.parametrize(("inplace", "expected"), [(True, 100), (False, 200)])
def test_an_operation_may_overwrite_its_source(inplace: bool, expected: int) -> None:
    g = Builder(0)
    first = g.op("first", (25,), g.weight("w", 8, 0))
    g.expand(g.op("second", (25,), first, inplace=inplace))
    assert peak(g) == [expected]


def test_a_source_that_is_needed_later_is_not_overwritten() -> None:
    g = Builder(0)
    first = g.op("first", (25,), g.weight("w", 8, 0))
    second = g.op("second", (25,), first, inplace=True)
    g.expand(g.op("sum", (25,), second, first, inplace=True))
    assert peak(g) == [200]


def test_a_view_is_not_overwritten() -> None:
    g = Builder(0)
    first = g.op("first", (25,), g.weight("w", 8, 0))
    g.expand(g.op("second", (25,), g.view("folded", (25,), first), inplace=True))
    assert peak(g) == [200]


def test_a_view_keeps_its_tensor() -> None:
    g = Builder(0)
    first = g.op("first", (25,), g.weight("w", 8, 0))
    view = g.view("half", (10,), first)
    second = g.op("second", (25,), g.weight("w", 8, 0), first)
    g.expand(g.op("join", (25,), view, second))
    assert peak(g) == [300]


def test_weights_decide_where_an_operation_runs_and_its_input_is_copied_there() -> None:
    g = Builder(HOST)
    on_host = g.op("embed", (25,), g.weight("table", 8, HOST), g.input("tokens", 4))
    g.expand(g.op("product", (50,), g.weight("w", 8, 0), on_host))
    assert peak(g) == [100 + 200, 4 + 100]


def test_operations_without_weights_follow_their_neighbours() -> None:
    g = Builder(HOST)
    first = g.op("first", (1,), g.weight("w", 8, 0))
    between = g.op("between", (1,), first)
    g.expand(g.op("last", (1,), between, g.weight("w", 8, HOST)))
    assign_backends(g.nodes, HOST)
    assert [node.backend for node in g.nodes] == [0, 0, HOST]


def test_large_batches_are_taken_over_from_the_host() -> None:
    def backend(columns: int) -> int:
        g = Builder(HOST)
        node = g.mul_mat(
            "product", g.weight("w", 8, HOST), 4, (columns,), g.input("x", 4)
        )
        g.expand(node)
        assign_backends(g.nodes, HOST, [True])
        return node.backend

    assert (backend(31), backend(32)) == (HOST, 0)


def test_pipelined_devices_keep_every_copy_several_times() -> None:
    def device_bytes(copies: int) -> int:
        g = Builder(HOST)
        on_host = g.op("embed", (25,), g.weight("table", 8, HOST), g.input("tokens", 4))
        g.expand(g.op("product", (50,), g.weight("w", 8, 0), on_host))
        assign_backends(g.nodes, HOST)
        return peaks(with_copies(g.nodes, g.inputs, copies), g.inputs, [1, 1])[0]

    assert device_bytes(4) - device_bytes(1) == 3 * 100


def test_nodes_have_a_readable_form() -> None:
    assert repr(Node("kq", 12)) == "<kq 12>"
