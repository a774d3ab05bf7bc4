"""Two cards of one name, the commonest rig of all: whatever is said of one says which."""

from __future__ import annotations

import pytest

from gpus.discovery import save_rig
from gpus.facts import known_cards, seen_lately
from gpus.history_shown import choices_of
from gpus.models import Gpu, HistorySubject, Host
from gpus.sample import CardIdentity, NvmlState, told_apart

RTX_3090 = "NVIDIA GeForce RTX 3090"
RTX_5090 = "NVIDIA GeForce RTX 5090"


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], []),
        ([RTX_3090, RTX_5090], [RTX_3090, RTX_5090]),
        ([RTX_3090, RTX_3090], [f"{RTX_3090} (GPU 0)", f"{RTX_3090} (GPU 1)"]),
        (
            [RTX_3090, RTX_5090, RTX_3090],
            [f"{RTX_3090} (GPU 0)", RTX_5090, f"{RTX_3090} (GPU 2)"],
        ),
        # What could not be opened has its number for a name already.
        (["", ""], ["GPU 0", "GPU 1"]),
    ],
)
def test_told_apart_when_names_are_shared_adds_the_number(
    names: list[str], shown: list[str]
) -> None:
    cards = [CardIdentity(index, name=name) for index, name in enumerate(names)]
    assert [card.shown_name for card in told_apart(cards)] == shown


@pytest.fixture
def pair(db: None) -> Host:
    host = Host.objects.create(name="testhost")
    cards = [CardIdentity(number, f"GPU-{number}", RTX_3090) for number in range(2)]
    save_rig(host, NvmlState("ok"), cards)
    host.refresh_from_db()
    return host


def test_pair_when_written_down_keeps_the_makers_name(pair: Host) -> None:
    assert set(Gpu.objects.values_list("name", flat=True)) == {RTX_3090}
    assert [card.shown_name for card in known_cards(pair)] == [
        f"{RTX_3090} (GPU 0)",
        f"{RTX_3090} (GPU 1)",
    ]


def test_pair_when_one_is_taken_out_says_which(pair: Host) -> None:
    Gpu.objects.filter(uuid="GPU-1").update(state=Gpu.State.ABSENT)
    titles = [finding.title for finding in seen_lately(pair).findings]
    assert f"{RTX_3090} (GPU 1) is not there any more" in titles


def test_pair_in_the_history_is_offered_by_number(pair: Host) -> None:
    for number in range(2):
        HistorySubject.objects.create(host=pair, key=f"GPU-{number}", title=RTX_3090)
    assert [choice.title for choice in choices_of(pair)] == [
        f"{RTX_3090} (GPU 0)",
        f"{RTX_3090} (GPU 1)",
    ]
