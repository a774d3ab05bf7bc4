"""Predictions beside what others have measured and published."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import pytest

from benchmarks.published_speeds import Compared, compared, line, summary
from tests.planning.published_models import MODELS, shape_of
from tests.planning.published_speeds import PUBLISHED, SOURCES

GIB = 1 << 30


@pytest.fixture(scope="module")
def figures() -> list[Compared]:
    return compared()


@pytest.mark.parametrize("model", MODELS)
def test_the_models_have_the_bytes_of_the_files_that_were_measured(model: str) -> None:
    shape = shape_of(model)
    tensors = [t for kind in shape.layer_kinds() for t in kind.tensors]
    total = sum(t.n_bytes for t in (*tensors, *shape.extra.values()))
    assert total / GIB == pytest.approx(MODELS[model][1], rel=0.006)


@pytest.mark.parametrize("rates", [("decode",), ("decode", "prefill")])
@pytest.mark.parametrize("is_held_out", [False, True])
def test_predictions_come_near_to_what_was_published(
    figures: Sequence[Compared], rates: tuple[str, ...], is_held_out: bool
) -> None:
    these = [
        figure
        for figure in figures
        if figure.rate in rates and figure.row.is_held_out == is_held_out
    ]
    print(*map(line, these), summary(these), sep="\n")

    errors = [abs(figure.error) for figure in these]
    assert median(errors) <= 0.15
    assert max(errors) <= 0.40


def test_most_of_what_was_published_lies_in_the_range_that_is_given(
    figures: Sequence[Compared],
) -> None:
    covered = [figure for figure in figures if figure.is_in_range]
    assert len(covered) / len(figures) > 0.9


def test_the_table_is_broad_enough_to_say_something() -> None:
    pairs = {(row.card, row.model) for row in PUBLISHED}
    held_out = [row for row in PUBLISHED if row.is_held_out]

    assert len(pairs) >= 40
    assert len({row.card for row in PUBLISHED}) >= 12
    assert len(held_out) >= len(PUBLISHED) / 3
    assert {row.source for row in PUBLISHED} == set(SOURCES)
