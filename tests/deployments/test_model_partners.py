"""Which projector belongs to which model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deployments.formats.partners import Belonging, PartnerFile, belonging, partners

MODEL = PartnerFile(
    "m", "/models/a/m.gguf", False, 4096, arch="llama", title="Eyes 8B Instruct"
)
PROJECTOR = PartnerFile(
    "p", "/models/a/mmproj.gguf", True, 4096, arch="clip", title="mmproj-Eyes-8B-F16"
)


@pytest.mark.parametrize(
    ("path", "width", "belongs"),
    [
        ("/models/a/mmproj.gguf", 4096, Belonging.YES),
        ("/models/a/mmproj.gguf", 2048, Belonging.NO),
        ("/models/a/mmproj.gguf", None, Belonging.NO),
        ("/models/mmproj.gguf", 4096, Belonging.YES),
        ("/elsewhere/mmproj.gguf", 4096, Belonging.YES),
        ("/models/a/sub/mmproj.gguf", 4096, Belonging.YES),
    ],
)
def test_where_a_projector_lies_says_nothing_and_its_width_only_rules_out(
    path: str, width: int | None, belongs: Belonging
) -> None:
    projector = replace(PROJECTOR, path=path, width=width)
    assert belonging(MODEL, projector) == belongs
    assert partners(MODEL, [projector], belongs) == [projector]
    assert partners(projector, [MODEL], belongs) == [MODEL]


@pytest.mark.parametrize(
    ("model", "projector", "belongs"),
    [
        # The type of the projector names the architecture.
        ({"arch": "gemma3"}, {"projector_type": "gemma3"}, True),
        ({"arch": "qwen2"}, {"projector_type": "gemma3"}, False),
        ({"arch": "qwen3"}, {"projector_type": "qwen3vl_merger"}, False),
        ({"arch": "qwen3vlmoe"}, {"projector_type": "qwen3vl_merger"}, True),
        # Types of many families: the names decide.
        (
            {"basename": "SmolVLM2"},
            {"projector_type": "idefics3", "basename": "smolvlm2"},
            True,
        ),
        (
            {"basename": "Hermes-3"},
            {"projector_type": "idefics3", "basename": "SmolVLM2"},
            False,
        ),
        # Same architecture and width, another family all the same.
        (
            {"arch": "gemma3", "basename": "medgemma"},
            {"projector_type": "gemma3", "basename": "gemma-3"},
            False,
        ),
        # The model that both are made from, whichever step of training is named.
        (
            {"base_model": "https://huggingface.co/google/gemma-3-4b-pt"},
            {"base_model": "https://huggingface.co/google/gemma-3-4b-it"},
            True,
        ),
        ({"base_model": "org/Other-8B"}, {"base_model": "org/Eyes-8B"}, False),
        # Files that say nothing: their names.
        (
            {"title": "llava-v1.6-mistral-7b.Q4_K_M"},
            {"title": "mmproj-llava-v1.6-mistral-7b-f16"},
            True,
        ),
        # A width and no name that both have is not enough, and rules nothing out: a choice.
        (
            {"title": "Mistral 7B Instruct"},
            {"title": "mmproj-llava-v1.6-mistral-7b-f16"},
            None,
        ),
        ({"title": "Eyes 8B"}, {"title": "mmproj-model-f16"}, None),
        ({"title": "mmproj"}, {"title": "mmproj-f16"}, None),
        ({"title": "Eyes", "basename": "eyes"}, {"title": "vit-large336-custom"}, None),
    ],
)
def test_a_projector_of_equal_width_is_of_the_same_family(
    model: dict[str, str], projector: dict[str, str], belongs: bool | None
) -> None:
    wanted = {True: Belonging.YES, False: Belonging.NO, None: Belonging.PERHAPS}
    files = replace(MODEL, **model), replace(PROJECTOR, **projector)
    assert belonging(*files) == wanted[belongs]


def test_the_nearer_projector_comes_first_and_models_are_no_projectors() -> None:
    far = replace(PROJECTOR, name="a", path="/models/a.gguf")
    near = replace(PROJECTOR, name="z", path="/models/a/z.gguf")
    twin = replace(MODEL, name="twin", path="/models/a/t.gguf")
    assert partners(MODEL, [far, near, twin]) == [near, far]
    assert belonging(MODEL, twin) == belonging(near, near) == Belonging.NO
