"""What files of a repository are one choice, what they are called, and which suits the memory there
is."""

from __future__ import annotations

import pytest

from deployments.library.hub_files import (
    DeviceRoom,
    DownloadOption,
    RepoFile,
    choices,
    fits,
    is_safe_path,
    parse_hub_name,
    parse_repo,
    quant_of,
    recommended,
    suggested_projector,
    wanted_choice,
)
from omni.errors import OmniError
from omni.units import GIB

HEX = "0" * 64


def listing(*entries: tuple[str, float]) -> list[RepoFile]:
    return [RepoFile(path, int(size * GIB), HEX) for path, size in entries]


MIXED = listing(
    ("README.md", 0),
    ("Big-32B-Q4_K_M.gguf", 18),
    ("Big-32B-Q8_0.gguf", 33),
    ("BF16/Big-32B-BF16-00001-of-00002.gguf", 40),
    ("BF16/Big-32B-BF16-00002-of-00002.gguf", 22),
    ("Q2_K/Big-32B-Q2_K-00001-of-00002.gguf", 8),
    ("mmproj-Big-32B-F16.gguf", 1),
    ("mmproj-Big-32B-F32.gguf", 2),
    ("Big-32B.imatrix.gguf", 0.1),
    ("imatrix.dat", 0.1),
)


def by_label(files: list[RepoFile]) -> dict[str, DownloadOption]:
    return {f"{choice.kind} {choice.label}": choice for choice in choices(files)}


def test_quantisations_shards_and_projectors_are_told_apart() -> None:
    found = by_label(MIXED)
    assert list(found) == [
        "projector F16", "projector F32", "model Q2_K", "model Q4_K_M", "model Q8_0", "model BF16",
    ]  # fmt: skip
    assert [file.path for file in found["model BF16"].files] == [
        MIXED[3].path,
        MIXED[4].path,
    ]
    assert found["model BF16"].size_bytes == 62 * GIB
    assert (found["model Q2_K"].n_missing, found["model Q4_K_M"].n_missing) == (1, 0)


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M", "Q4_K_M"),
        ("llama-3.2-1b-instruct-q4_k_m", "Q4_K_M"),
        ("model.Q5_0", "Q5_0"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("x-IQ2_XXS", "IQ2_XXS"),
        ("x-TQ1_0", "TQ1_0"),
        ("gpt-oss-20b-mxfp4", "MXFP4"),
        ("gpt-oss-20b-F16", "F16"),
        ("x.fp16", "FP16"),
        ("Q6_K/model", "Q6_K"),
        ("Q6_K/model-IQ4_NL", "IQ4_NL"),
        ("Qwen2-7B", ""),
        ("SQ8_0model", ""),
    ],
)
def test_the_quantisation_is_read_from_the_name(name: str, quant: str) -> None:
    assert quant_of(name) == quant


def test_several_models_of_one_quantisation_go_by_their_names() -> None:
    found = choices(
        listing(
            ("a-Q4_0.gguf", 1),
            ("b-Q4_0.gguf", 2),
            ("c-Q8_0.gguf", 3),
            ("plain.gguf", 4),
        )
    )
    assert [choice.label for choice in found] == ["a-Q4_0", "b-Q4_0", "Q8_0", "plain"]


@pytest.mark.parametrize(
    ("devices", "label"),
    [
        ({"CUDA0": 24}, "Q4_K_M"),
        ({"CUDA0": 48, "CUDA1": 8}, "Q8_0"),
        ({"CUDA0": 8, "CPU": 64}, "Q8_0"),
        ({"CUDA0": 400}, "Q8_0"),
        ({"CPU": 4}, ""),
        ({}, ""),
    ],
)
def test_the_largest_that_fits_in_one_device_is_recommended(
    devices: dict[str, int], label: str
) -> None:
    rooms = [
        DeviceRoom(name, size * GIB, name != "CPU") for name, size in devices.items()
    ]
    found = choices(MIXED)
    key = recommended(found, rooms)
    assert next((choice.label for choice in found if choice.key == key), "") == label


def test_an_unquantised_one_is_recommended_where_there_is_no_other() -> None:
    found = choices(listing(("x-F16.gguf", 1)))
    assert recommended(found, [DeviceRoom("CUDA0", 24 * GIB)]) == "x-F16.gguf"


def test_what_fits() -> None:
    place = DeviceRoom("CUDA0", 12 * GIB)
    assert fits(10 * GIB, place) and not fits(10 * GIB + (1 << 20), place)
    assert fits(GIB, DeviceRoom("CUDA1", None)) is None


def test_the_projector_to_take_along() -> None:
    assert suggested_projector(choices(MIXED)) == "mmproj-Big-32B-F16.gguf"
    assert suggested_projector(choices(listing(("a-Q4_0.gguf", 1)))) == ""


@pytest.mark.parametrize(
    ("text", "repo", "revision", "part"),
    [
        ("owner/name", "owner/name", "", ""),
        ("  owner/Name.v1_x-GGUF ", "owner/Name.v1_x-GGUF", "", ""),
        ("owner/name:Q4_K_M", "owner/name", "", "Q4_K_M"),
        ("https://hub.example/owner/name", "owner/name", "", ""),
        ("https://hub.example/owner/name/", "owner/name", "", ""),
        ("https://hub.example/owner/name/tree/main", "owner/name", "main", ""),
        (
            "https://hub.example/owner/name/blob/main/sub/a.gguf?x=1#y",
            "owner/name",
            "main",
            "sub/a.gguf",
        ),
        (
            "https://hub.example/owner/name/resolve/v2/a.gguf?download=true",
            "owner/name",
            "v2",
            "a.gguf",
        ),
        ("hub.example/owner/name:Q8_0", "owner/name", "", "Q8_0"),
    ],
)
def test_what_is_typed_names_a_repository(
    text: str, repo: str, revision: str, part: str
) -> None:
    wanted = parse_repo(text)
    assert (wanted.repo, wanted.revision, wanted.part) == (repo, revision, part)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hub:owner/name", "hub:owner/name"),
        (" hub:owner/name:Q8_0 ", "hub:owner/name:Q8_0"),
        ("owner/name@v2:Q8_0", "hub:owner/name@v2:Q8_0"),
        ("hub:some.org/name@refs/pr/1", "hub:some.org/name@refs/pr/1"),
        ("hub:owner/name:a/b@c.gguf", "hub:owner/name:a/b@c.gguf"),
        ("https://hub.example/owner/name/tree/v2", "hub:owner/name@v2"),
        ("https://hub.example/owner/name/blob/v2/a.gguf", "hub:owner/name@v2:a.gguf"),
    ],
)
def test_a_model_at_the_hub_has_one_spelling_that_reads_back(
    text: str, name: str
) -> None:
    wanted = parse_hub_name(text)
    assert wanted.name == name and parse_hub_name(name) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "/",
        "a/",
        "../../etc",
        "a/..",
        "a b/c",
        "a/b\0",
        "https://hub.example/",
    ],
)
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(OmniError, match="is no repository"):
        parse_repo(text)


def test_a_pasted_address_picks_its_choice() -> None:
    found = choices(MIXED)
    assert wanted_choice(found, "q8_0") == "Big-32B-Q8_0.gguf"
    assert (
        wanted_choice(found, "BF16/Big-32B-BF16-00002-of-00002.gguf")
        == "BF16/Big-32B-BF16-00001-of-00002.gguf"
    )
    assert wanted_choice(found, "") == wanted_choice(found, "nothing") == ""


@pytest.mark.parametrize(
    "path",
    ["../a", "/a", "a/../b", "a//b", ".hidden/a", "a\\b", "c:a", "a\nb", "", "x" * 300],
)
def test_names_that_leave_their_folder_are_not_safe(path: str) -> None:
    assert not is_safe_path(path)


def test_plain_names_are_safe() -> None:
    assert is_safe_path("sub/Model Q4 (v2)-00001-of-00002.gguf")
