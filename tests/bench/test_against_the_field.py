"""What the comparison with other tools makes of their figures and of the engine's log."""

from __future__ import annotations

import pytest

from benchmarks.field.figures import (
    Figures,
    Logged,
    differences,
    logged_times,
    rows_of,
    table,
    verdict,
)

# As llama-server writes it.
LOG = """\
0.03.420.043 I slot print_timing: id  0 | task 0 | prompt eval time =     164.89 ms /    52 tokens \
(    3.17 ms per token,   315.36 tokens per second)
0.03.420.881 I slot print_timing: id  0 | task 0 |        eval time =       0.00 ms /     1 tokens \
(    0.00 ms per token,     0.00 tokens per second)
0.03.420.888 I slot print_timing: id  0 | task 0 |       total time =     164.89 ms /    53 tokens
0.03.424.875 I slot get_availabl: id  0 | task -1 | selected slot by LRU, t_last = 46300790418
0.05.176.188 I slot print_timing: id  0 | task 4 | prompt eval time =     404.36 ms /   133 tokens \
(    3.04 ms per token,   328.92 tokens per second)
0.05.176.222 I slot print_timing: id  0 | task 4 |        eval time =    1232.76 ms /    64 tokens \
(   19.57 ms per token,    51.10 tokens per second)
"""


def test_the_engines_own_times_are_read_out_of_its_log() -> None:
    assert logged_times(LOG) == [
        Logged(164.89, 52, 0.0, 1),
        Logged(404.36, 133, 1232.76, 64),
    ]
    assert logged_times("nothing was asked") == []


def figures(slower: float, first_token_ms: float) -> Figures:
    """Three requests to an engine that was so much slower, as a tool saw them."""
    engine_ms = [100 * slower, 110 * slower, 120 * slower]
    return Figures(
        first_token_ms=[ms + first_token_ms for ms in engine_ms],
        output_tps=[50 / slower] * 3,
        engine_prompt_tokens=[128] * 3,
        engine_prompt_ms=engine_ms,
        engine_tps=[50 / slower] * 3,
    )


def test_a_busy_machine_is_told_apart_from_a_tool_that_measures_otherwise() -> None:
    rows = rows_of({"omni": figures(1, 5), "another": figures(2, 5)})
    apart = differences(rows, "another")
    assert apart["first_token_ms"] == pytest.approx((115 / 225 - 1) * 100)
    assert apart["output_tps"] == pytest.approx(100)
    assert apart["equal_first_token_ms"] == pytest.approx(0)
    assert apart["equal_output_tps"] == pytest.approx(0)
    assert verdict(rows) == "NOT within 5 %: first_token_ms, output_tps."


def test_a_tool_that_sees_a_later_first_token_is_seen() -> None:
    rows = rows_of({"omni": figures(1, 25), "another": figures(1, 5)})
    apart = differences(rows, "another")
    assert apart["first_token_ms"] == pytest.approx((135 / 115 - 1) * 100)
    assert apart["equal_first_token_ms"] == pytest.approx((135 / 115 - 1) * 100)
    assert "equal_first_token_ms" in verdict(rows)
    assert "another" in table(rows, 1)


def test_the_same_figures_are_within_the_goal() -> None:
    rows = rows_of({"omni": figures(1, 5), "another": figures(1, 6)})
    assert verdict(rows) == "All within 5 %."
