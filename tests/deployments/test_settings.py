"""Deployment settings: what each key takes, and how a wrong value is refused by name."""

from __future__ import annotations

import pytest

from deployments.planning.settings import (
    DEFAULT_CONTEXT,
    SETTINGS,
    conflicts,
    context_tokens,
    parse_setting,
    validated,
    with_defaults,
)
from omni.errors import OmniError


@pytest.mark.parametrize(
    ("key", "raw", "value"),
    [
        ("context", 4096, 4096),
        ("context", " 4096 ", 4096),
        ("context", "auto", "auto"),
        ("parallel", "64", 64),
        ("gpu_layers", "ALL", "all"),
        ("gpu_layers", 0, 0),
        ("kv_cache_k", "q8_0", "q8_0"),
        ("flash_attention", True, "on"),
        ("flash_attention", False, "off"),
        ("load_mode", "mmap+mlock", "mmap+mlock"),
        ("cache_ram_mib", 0, 0),
    ],
)
def test_a_value_gets_its_own_type(key: str, raw: object, value: object) -> None:
    assert parse_setting(key, raw) == value
    assert type(parse_setting(key, raw)) is type(value)


@pytest.mark.parametrize(
    ("key", "raw"),
    [
        ("context", 255),
        ("context", -1),
        ("context", "many"),
        ("context", 1.5),
        ("context", None),
        ("context", [4096]),
        ("context", "٤٠٩٦"),
        ("context", "1e4"),
        ("parallel", 0),
        ("parallel", "auto"),
        ("parallel", True),
        ("gpu_layers", 1000),
        ("kv_cache_k", "f8"),
        ("kv_cache_k", ""),
        ("flash_attention", 1),
        ("threads", "-2"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key_and_what_it_takes(
    key: str, raw: object
) -> None:
    with pytest.raises(OmniError) as refused:
        parse_setting(key, raw)
    assert refused.value.code == "bad_setting"
    assert refused.value.text.startswith(f"{key} is ")
    assert SETTINGS[key].allowed in refused.value.fix


def test_a_misspelt_key_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(OmniError, match="'paralel'.*Did you mean parallel"):
        validated({"paralel": 2})


def test_every_default_is_a_value_that_its_setting_takes() -> None:
    assert all(
        setting.parsed(setting.default) == setting.default
        for setting in SETTINGS.values()
    )
    assert not conflicts({})


def test_validated_keeps_what_was_given_and_fills_nothing_in() -> None:
    assert validated({"context": "2048", "parallel": 2}) == {
        "context": 2048,
        "parallel": 2,
    }
    assert set(with_defaults({"context": 2048})) == set(SETTINGS)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"flash_attention": "off", "kv_cache_v": "q8_0"}, "kv_cache_v"),
        ({"batch": 256, "ubatch": 512}, "ubatch"),
        ({"batch": 256}, "ubatch"),
    ],
)
def test_values_that_exclude_each_other_are_refused_under_the_key_to_change(
    settings: dict[str, object], key: str
) -> None:
    assert [found for found, _ in conflicts(settings)] == [key]
    with pytest.raises(OmniError, match=f"^{key} is "):
        validated(settings)


@pytest.mark.parametrize(
    ("settings", "trained", "tokens"),
    [
        ({}, 2048, 2048),
        ({}, 131_072, DEFAULT_CONTEXT),
        ({}, None, DEFAULT_CONTEXT),
        ({"context": 16_384}, 8192, 16_384),
    ],
)
def test_an_automatic_context_is_what_the_model_was_trained_for_up_to_a_bound(
    settings: dict[str, object], trained: int | None, tokens: int
) -> None:
    assert context_tokens(settings, trained) == tokens
