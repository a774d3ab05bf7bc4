"""What a model's page says of drafts and number formats."""

from __future__ import annotations

import html
import re

import pytest
from django.test import Client

from deployments.models import Engine, Model
from gpus.models import Host


def page(client: Client, model: Model) -> str:
    answer = client.get(f"/models/{model.name}/advice/")
    assert answer.status_code == 200
    return re.sub(
        r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", answer.content.decode()))
    )


def test_a_lone_model_has_no_draft_and_is_told_of_others(
    viewer: Client, engine: Engine, model: Model
) -> None:
    text = page(viewer, model)
    assert "No smaller model of the library has the same vocabulary" in text
    assert "Without a second model" in text


def test_smaller_models_are_ranked_and_refused_ones_say_why(
    viewer: Client, engine: Engine, model: Model
) -> None:
    smaller = {
        "n_params": 10**7,
        "facts": {**model.facts, "n_params": 10**7, "size_bytes": 10**7},
        "shape": model.shape,
    }
    Model.objects.create(name="fits", path="/fits.gguf", vocab=model.vocab, **smaller)
    other = {**model.vocab, "kind": "SPM"}
    Model.objects.create(name="stranger", path="/stranger.gguf", vocab=other, **smaller)
    text = page(viewer, model)
    assert "Plan with fits" in text and "Plan with stranger" not in text
    assert (
        "1 that cannot" in text
        and "The tokenizers are of different types: BPE and SPM" in text
    )


def test_the_cache_is_told_by_format_and_fp8_is_refused(
    viewer: Client, engine: Engine, model: Model
) -> None:
    text = page(viewer, model)
    assert "f16 22.5 KiB" in text and "q8_0 12 KiB" in text
    assert "FP8 is none of the engine's formats" in text


def test_a_model_that_cannot_be_read_says_so(
    viewer: Client, host: Host, model: Model
) -> None:
    Model.objects.filter(pk=model.pk).update(shape={})
    assert "cannot be used" in page(viewer, model)


@pytest.mark.usefixtures("engine")
def test_the_page_fetches_its_advice(viewer: Client, model: Model) -> None:
    assert (
        f'hx-get="/models/{model.name}/advice/"'
        in viewer.get(f"/models/{model.name}/").content.decode()
    )
