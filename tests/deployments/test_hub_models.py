"""Models at a hub: read by ranges, named, kept, planned with, and never put into the library."""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from huggingface_hub import constants

from deployments.library import hub_client, hub_headers
from deployments.library.reading import describe_file
from deployments.models import Model
from deployments.services import hub_models
from deployments.services.hub_models import FIELDS, hub_model
from omni.errors import OmniError
from omni.units import MIB, bytes_text
from tests.deployments.big_model import big_model, big_shards
from tests.deployments.gguf_corpus import array, header, pair, write_with_package
from tests.deployments.local_hub import LocalHub, Repo

pytestmark = pytest.mark.django_db
BIG = "some-org/Big-GGUF"
MANY = "some.org/Many-GGUF"


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return big_model(tmp_path_factory.mktemp("big") / "big-Q4_K_M.gguf")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return big_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    write_with_package(path)
    return path.read_bytes()


@pytest.fixture
def hub(
    big: Path, shards: list[Path], small: bytes, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalHub]:
    many = {
        "m-Q4_0.gguf": small,
        "m-Q8_0.gguf": small + b"8",
        "a/m-Q5_0.gguf": small + b"a",
        "b/m-Q5_0.gguf": small + b"b",
        "half-F16-00001-of-00002.gguf": small,
        "mmproj-F16.gguf": small,
        "README.md": b"# Many",
    }
    repos = {
        BIG: Repo({big.name: big}),
        "some-org/Shards": Repo({f"parts/{path.name}": path for path in shards}),
        MANY: Repo(many),
        "some-org/Gated": Repo({"g-Q4_0.gguf": small}, gated="manual"),
        "some-org/Weights": Repo({"model.safetensors": b"x"}),
        "some-org/Broken": Repo({"b-Q4_0.gguf": b"GGUF" + bytes(400)}),
    }
    with LocalHub(repos) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running
    # Another hub may get the same port.
    shutil.rmtree(settings.OMNI_HOME.hub_headers, ignore_errors=True)


def columns(model: Model) -> dict[str, Any]:
    """As the database would keep them."""
    found: dict[str, Any] = json.loads(
        json.dumps({name: getattr(model, name) for name in FIELDS})
    )
    return found


def refused(name: str) -> OmniError:
    with pytest.raises(OmniError) as error:
        hub_model(name)
    return error.value


# --- a few MB of 40 GB ----------------------------------------------------------------------------
def test_forty_gb_with_a_vocabulary_of_150_k_cost_less_than_16_mb_once(
    hub: LocalHub, big: Path
) -> None:
    assert big.stat().st_size > 40e9
    model = hub_model(f"hub:{BIG}:Q4_K_M")
    assert 4e6 < hub.sent_bytes < 16e6
    assert model.name == f"hub:{BIG}:Q4_K_M" and model.pk is None
    assert model.path == str(settings.OMNI_HOME.models / BIG / big.name)
    assert columns(model) == columns(describe_file(Model(), big))
    assert model.facts["n_vocab"] == 150_000 and model.vocab["prefixes"]

    sent, requests = hub.sent_bytes, len(hub.requests)
    for name in (f"hub:{BIG}:Q4_K_M", f"hub:{BIG}:{big.name}", f"hub:{BIG}"):
        assert columns(hub_model(name)) == columns(model)
    assert (hub.sent_bytes, len(hub.requests)) == (sent, requests)
    assert not Model.objects.exists()


def test_of_shards_each_header_is_read(hub: LocalHub, shards: list[Path]) -> None:
    model = hub_model("hub:some-org/Shards:Q4_K_M")
    assert sum(path.stat().st_size for path in shards) > 40e9
    assert hub.sent_bytes < 16e6
    asked = {request.path.rsplit("/", 1)[-1] for request in hub.file_requests()}
    assert asked == {path.name for path in shards}
    assert columns(model) == columns(describe_file(Model(), shards[0]))
    assert [Path(path).name for path in model.shards] == [path.name for path in shards]


def test_a_connection_that_breaks_is_taken_up_again(hub: LocalHub) -> None:
    hub.cut_after, hub.cuts = 300_000, 2
    assert hub_model(f"hub:{BIG}:Q4_K_M").arch == "llama"
    assert hub.sent_bytes < 16e6


def test_a_connection_that_always_breaks_is_given_up(hub: LocalHub) -> None:
    hub.cut_after, hub.cuts = 300_000, 1000
    error = refused(f"hub:{BIG}:Q4_K_M")
    assert error.code == "hub_unreachable" and error.retry
    assert len(hub.file_requests()) == hub_headers.TRIES


# --- hubs that do not serve ranges, or not well ---------------------------------------------------
def test_a_hub_without_ranges_is_told_in_clear_words_and_sends_next_to_nothing(
    hub: LocalHub, big: Path
) -> None:
    hub.ranges = False
    size = bytes_text(big.stat().st_size)
    error = refused(f"hub:{BIG}:Q4_K_M")
    assert error.code == "hub_no_ranges"
    assert "sends whole files only" in error.text and size in error.text
    assert "Download the model" in error.fix
    # What the kernel's buffers took.
    assert hub.sent_bytes < 16e6 and len(hub.file_requests()) == 1


def test_what_drips_is_left(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_headers, "DEADLINE_S", 0.5)
    hub.rate_bps = 100_000
    began = time.monotonic()
    error = refused(f"hub:{BIG}:Q4_K_M")
    assert error.code == "hub_slow" and error.retry
    assert time.monotonic() - began < 5


def test_a_header_without_end_is_left(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_headers, "MOST_HEADER_BYTES", 3 * MIB)
    assert refused(f"hub:{BIG}:Q4_K_M").code == "hub_header_large"
    assert hub.sent_bytes <= 3 * MIB


@pytest.mark.parametrize(
    ("claimed", "code"),
    [
        # Bytes, texts and arrays that would be most of the file.
        (pair("a", 9, array(0, 30_000_000_000)), "hub_header_large"),
        (pair("a", 9, array(8, 1_000_000_000)), "gguf_invalid"),
        (pair("a", 9, array(9, 1_000_000_000)), "gguf_invalid"),
        (pair("a", 8, struct.pack("<Q", 30_000_000_000)), "gguf_invalid"),
        (pair("a", 8, struct.pack("<Q", 90_000_000_000)), "gguf_truncated"),
        (struct.pack("<Q", 30_000_000_000), "gguf_invalid"),
        # A vocabulary of nothing but holes: as many texts as may be, eight bytes each.
        (pair("a", 9, array(8, 1_400_000)), "gguf_invalid"),
    ],
)
def test_what_a_header_claims_is_not_fetched(
    hub: LocalHub, tmp_path: Path, claimed: bytes, code: str
) -> None:
    path = tmp_path / "claims-Q4_0.gguf"
    path.write_bytes(header([claimed], n_pairs=9))
    os.truncate(path, 40_000_000_000)
    hub.repos["some-org/Claims"] = Repo({path.name: path})
    assert refused("hub:some-org/Claims:Q4_0").code == code
    assert hub.sent_bytes < 16e6


def test_what_is_no_gguf_is_refused_as_the_hubs(hub: LocalHub) -> None:
    error = refused("hub:some-org/Broken:Q4_0")
    assert error.code == "gguf_version" and "at the hub" in error.text
    assert "another file" in error.fix


def test_the_token_of_a_gated_repository_goes_to_the_hub_and_not_to_its_cdn(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "check_target", lambda url: None)
    monkeypatch.setattr(hub_client, "_check_peer", lambda response: None)
    assert refused("hub:some-org/Gated:Q4_0").code == "hub_gated"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with LocalHub(hub.repos) as cdn:
        hub.cdn = cdn.url
        assert hub_model("hub:some-org/Gated:Q4_0").arch
        assert hub.requests[-1].token == hub.token
        assert cdn.sent_bytes and [request.token for request in cdn.requests] == [""]


# --- names ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"hub:{MANY}:Q4_0", "m-Q4_0.gguf"),
        (f"hub:{MANY}:q8_0", "m-Q8_0.gguf"),
        (f"hub:{MANY}:m-Q8_0.gguf", "m-Q8_0.gguf"),
        (f"hub:{MANY}:a/m-Q5_0.gguf", "a/m-Q5_0.gguf"),
        (f"hub:{MANY}:b/m-Q5_0", "b/m-Q5_0.gguf"),
    ],
)
def test_a_name_says_which_file(hub: LocalHub, name: str, expected: str) -> None:
    model = hub_model(name)
    assert model.path.endswith(f"/{MANY}/{expected}")
    assert hub_model(model.name).path == model.path


def test_a_branch_in_the_name_is_what_is_asked_for(hub: LocalHub) -> None:
    model = hub_model(f"hub:{MANY}@main:Q4_0")
    assert model.name == f"hub:{MANY}@main:Q4_0"
    assert any(f"{MANY}/revision/main" in each.path for each in hub.requests)
    assert hub_model(model.name).path == model.path
    assert "no revision gone" in str(refused(f"hub:{MANY}@gone:Q4_0"))


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("smollm2", "bad_repo", "hub:OWNER/REPO:QUANT"),
        ("hub:nonsense", "bad_repo", "owner/name"),
        ("hub:../etc:Q4_0", "bad_repo", "owner/name"),
        ("hub:some-org/Nowhere:Q4_0", "hub_not_found", "spelling"),
        (f"hub:{MANY}:Q2_K", "hub_no_model", "of: Q4_0, a/m-Q5_0, b/m-Q5_0, Q8_0"),
        (f"hub:{MANY}", "hub_ambiguous", "any of 4 files"),
        (f"hub:{MANY}:Q5_0", "hub_ambiguous", "a/m-Q5_0, b/m-Q5_0"),
        (f"hub:{MANY}:m-Q5_0.gguf", "hub_ambiguous", "a/m-Q5_0, b/m-Q5_0"),
        (f"hub:{MANY}:F16", "bad_choice", "complete"),
        (f"hub:{MANY}:mmproj-F16.gguf", "hub_no_model", "Q4_0"),
        ("hub:some-org/Weights:Q4_0", "hub_no_model", "ends with GGUF"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_there_is(
    hub: LocalHub, name: str, code: str, says: str
) -> None:
    error = refused(name)
    assert error.code == code and says in f"{error.text} {error.fix}"
    assert not hub.sent_bytes


# --- what is kept ---------------------------------------------------------------------------------
def test_another_file_of_the_same_name_and_size_is_read_again(
    hub: LocalHub, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_models, "FRESH_S", 0.0)
    first = hub_model(f"hub:{MANY}:Q4_0")
    sent = hub.sent_bytes
    # Looked at again, and found to be the same.
    assert hub_model(f"hub:{MANY}:Q4_0").modified_ns == first.modified_ns
    assert hub.sent_bytes == sent
    hub.repos[MANY].files["m-Q4_0.gguf"] = small[:-1] + b"!"
    again = hub_model(f"hub:{MANY}:Q4_0")
    assert hub.sent_bytes > sent and again.size_bytes == first.size_bytes
    # Plans keep shapes by this.
    assert again.modified_ns != first.modified_ns


def test_without_the_hub_what_was_read_before_is_planned_with(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = columns(hub_model(f"hub:{MANY}:Q4_0"))
    monkeypatch.setattr(hub_models, "FRESH_S", 0.0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert columns(hub_model(f"hub:{MANY}:Q4_0")) == known
    assert refused(f"hub:{BIG}:Q4_K_M").code == "hub_offline"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.status = 503
    assert columns(hub_model(f"hub:{MANY}:Q4_0")) == known
    hub.status = 0
    del hub.repos[MANY]
    assert refused(f"hub:{MANY}:Q4_0").code == "hub_not_found"


@pytest.mark.parametrize(
    "written", [b"", b"{", b"[1]", b'{"key": 1}', b"\xff" * 40, b"[" * 5000]
)
def test_what_is_kept_and_damaged_is_read_again(hub: LocalHub, written: bytes) -> None:
    known = columns(hub_model(f"hub:{MANY}:Q4_0"))
    for path in settings.OMNI_HOME.hub_headers.iterdir():
        path.write_bytes(written)
    sent = hub.sent_bytes
    assert columns(hub_model(f"hub:{MANY}:Q4_0")) == known
    assert hub.sent_bytes > sent


def test_what_is_kept_is_bounded(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_models, "MOST_KEPT", 3)
    for part in ("Q4_0", "Q8_0", "a/m-Q5_0", "b/m-Q5_0"):
        hub_model(f"hub:{MANY}:{part}")
    assert len(list(settings.OMNI_HOME.hub_headers.iterdir())) == 3
    sent = hub.sent_bytes
    hub_model(f"hub:{MANY}:b/m-Q5_0")
    assert hub.sent_bytes == sent
    hub_model(f"hub:{MANY}:Q4_0")
    assert hub.sent_bytes > sent


def test_two_at_once_read_the_same(hub: LocalHub) -> None:
    found: list[dict[str, Any]] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(columns(hub_model(f"hub:{MANY}:Q4_0")))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4 and all(each == found[0] for each in found)
