"""Plans of models at a hub: by rig files that are planned and not applied, and on the Download
page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.test import Client
from huggingface_hub import constants

from deployments.library.folders import register
from deployments.models import Deployment, Engine, Model
from deployments.rig.apply import apply, preview
from deployments.rig.wanted import resolve
from deployments.rig.words import RigError
from deployments.services.checks import check_members
from deployments.services.hub_models import hub_model
from deployments.services.one_click import ways
from deployments.strategies import get_strategy
from gpus.models import Device, Host
from omni.errors import OmniError
from omni.units import GIB
from tests.deployments.big_model import big_model
from tests.deployments.gguf_corpus import smollm2
from tests.deployments.gguf_models import tiny, write_tiny
from tests.deployments.local_hub import COMMIT, LocalHub, Repo
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
BIG = "some-org/Big-GGUF"
TINY = "some-org/Tiny-GGUF"
RIG = """\
deployments:
  - name: big
    models: {model: "hub:NAME"}
    devices: {model: [CUDA0]}
    settings: {context: 8192}
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return big_model(tmp_path_factory.mktemp("big") / "big-Q4_K_M.gguf")


@pytest.fixture
def hub(
    big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalHub]:
    whole = write_tiny(tmp_path / "tiny.gguf", tiny("llama"))
    repos = {
        BIG: Repo({big.name: big}),
        TINY: Repo({"t-F16.gguf": whole, "t-Q8_0.gguf": smollm2().read_bytes()[:4000]}),
    }
    with LocalHub(repos) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield running


@pytest.fixture
def rig(host: Host, engine: Engine) -> Host:
    """A card that holds 40 GB, one that does not, and main memory that does not either."""
    host.devices.filter(kind="rpc").delete()
    for place, size in enumerate((96 * GIB, 32 * GIB)):
        Device.objects.create(
            host=host,
            name=f"CUDA{place}",
            kind="cuda",
            position=place,
            memory_bytes=size,
            description="NVIDIA GeForce RTX 5090",
        )
    engine.devices = [{"name": "CUDA0"}, {"name": "CUDA1"}]
    engine.save()
    return host


def rig_file(tmp_path: Path, name: str) -> str:
    path = tmp_path / "rig.yaml"
    path.write_text(RIG.replace("NAME", name))
    return str(path)


# --- rig files ------------------------------------------------------------------------------------
def test_a_rig_file_with_a_model_at_the_hub_is_planned_and_nothing_is_kept(
    rig: Host, hub: LocalHub, tmp_path: Path
) -> None:
    file = rig_file(tmp_path, f"{BIG}:Q4_K_M")
    out = StringIO()
    call_command("plan", file, "--json", stdout=out)
    (plan,) = json.loads(out.getvalue())["deployments"]
    assert plan["verdict"] == "viable"
    assert 38 * GIB < plan["devices"][0]["weights_bytes"] < 42 * GIB
    assert plan["predicted"]["decode_tps"] and plan["predicted"]["decode_range"]
    (mark,) = [each for each in plan["reasons"] if each["code"] == "not_downloaded"]
    assert mark["severity"] == "info" and "Download it" in mark["text"]
    assert any(
        str(word).endswith(f"/models/{BIG}/big-Q4_K_M.gguf")
        for word in plan["instances"][0]["argv"]
    )
    said = StringIO()
    call_command("plan", file, stdout=said)
    assert f"info: hub:{BIG}:Q4_K_M is not downloaded" in said.getvalue()
    assert hub.sent_bytes < 16e6
    assert not Model.objects.exists() and not Deployment.objects.exists()


def test_what_does_not_fit_says_so_before_the_download(
    rig: Host, hub: LocalHub, tmp_path: Path
) -> None:
    text = RIG.replace("NAME", f"{BIG}:Q4_K_M").replace("CUDA0", "CUDA1")
    text = text.replace("context: 8192", "gpu_layers: all")
    plan = resolve(text, asks_hub=True).plans["big"]
    codes = [reason.code for reason in plan.reasons]
    assert plan.verdict == "not_viable" and "does_not_fit" in codes
    assert "not_downloaded" in codes


@pytest.mark.parametrize("act", [apply, preview])
def test_a_file_is_not_applied_with_a_model_at_the_hub(
    rig: Host, hub: LocalHub, act: Callable[[str], object]
) -> None:
    with pytest.raises(RigError) as refused:
        act(RIG.replace("NAME", f"{BIG}:Q4_K_M"))
    (problem,) = refused.value.problems
    assert problem.line == 3 and "is not downloaded" in problem.text
    assert "Download it on the Models page" in problem.text
    assert not hub.requests and not Deployment.objects.exists()


def test_what_is_wrong_with_a_model_at_the_hub_stands_at_its_line(
    rig: Host, hub: LocalHub
) -> None:
    hub.ranges = False
    with pytest.raises(RigError) as refused:
        resolve(RIG.replace("NAME", f"{BIG}:Q4_K_M"), asks_hub=True)
    (problem,) = refused.value.problems
    assert problem.line == 3 and "sends whole files only" in problem.text


def test_a_model_at_the_hub_is_no_member_of_a_deployment(
    rig: Host, hub: LocalHub
) -> None:
    members = {"model": (hub_model(f"hub:{TINY}:F16"), ["CPU"])}
    with pytest.raises(OmniError) as refused:
        check_members(get_strategy("independent"), rig, members)
    assert refused.value.code == "not_downloaded"


# --- on this rig ----------------------------------------------------------------------------------
def test_each_device_has_its_best_way_and_the_best_comes_first(
    rig: Host, hub: LocalHub
) -> None:
    found = ways(rig, hub_model(f"hub:{BIG}:Q4_K_M"))
    assert [[device.name for device in way.devices] for way in found][0] == ["CUDA0"]
    assert found[0].plan.verdict == "viable" and found[0].plan.predicted.decode_tps
    by_name = {way.devices[0].name: way for way in found if len(way.devices) == 1}
    # It fits there only with a part of it in main memory.
    assert not by_name["CUDA1"].is_on_one_card or not by_name["CUDA1"].planned.can_serve
    assert all(
        "not_downloaded" in {reason.code for reason in way.plan.reasons}
        for way in found
    )


# --- the page -------------------------------------------------------------------------------------
def planned(
    client: Client, repo: str, part: str, revision: str = "", **headers: str
) -> str:
    query = {"repo": repo, "part": part, "revision": revision}
    answer = client.get("/models/download/plan/", query, headers=headers)
    assert answer.status_code == 200
    return squeezed(answer.content.decode())


def test_each_file_can_be_planned_from_the_page(
    admin: Client, rig: Host, hub: LocalHub
) -> None:
    answer = admin.get(f"/models/download/?repo={BIG}", headers=HTMX)
    (address,) = re.findall(r'hx-get="([^"]*/plan/[^"]*)"', answer.content.decode())
    text = squeezed(
        admin.get(address.replace("&amp;", "&"), headers=HTMX).content.decode()
    )
    assert "<html" not in text and "not downloaded" in text
    assert "Llama 3.3 70B" in text and "best here" in text
    rows = re.findall(r'<li class="way">(.*?)</li>', text)
    assert "CUDA0" in rows[0] and "fits" in rows[0] and "tokens/s" in rows[0]
    assert "between" in rows[0] and "of 96 GiB on CUDA0" in rows[0]
    assert any("CUDA1" in row for row in rows[1:])
    assert hub.sent_bytes < 16e6 and not Model.objects.exists()


def test_what_is_in_the_library_already_is_named(
    admin: Client, rig: Host, hub: LocalHub, tmp_path: Path, big: Path
) -> None:
    folder = tmp_path / "models" / BIG
    folder.mkdir(parents=True)
    (folder / big.name).symlink_to(big)
    known = register(folder / big.name)
    text = planned(admin, BIG, "Q4_K_M", **HTMX)
    assert f"in the library as {known.name}" in text and "not downloaded" not in text
    plan = ways(rig, hub_model(f"hub:{BIG}:Q4_K_M"))[0].plan
    (reason,) = [each for each in plan.reasons if each.code == "is_in_library"]
    assert reason.fix == f"Name it {known.name}."


def test_the_revision_that_was_looked_up_is_planned(
    admin: Client, rig: Host, hub: LocalHub
) -> None:
    page = admin.get(f"/models/download/?repo={BIG}", headers=HTMX).content.decode()
    assert f'name="revision" value="{COMMIT}"' in page
    assert f"revision={COMMIT}&amp;part=" in page
    assert "best here" in planned(admin, BIG, "Q4_K_M", revision=COMMIT, **HTMX)
    asked = [each.path for each in hub.requests]
    assert any(f"{BIG}/revision/{COMMIT}" in path for path in asked)
    assert "no revision" in planned(admin, BIG, "Q4_K_M", revision="gone", **HTMX)


def test_without_scripts_it_is_a_page(admin: Client, rig: Host, hub: LocalHub) -> None:
    text = planned(admin, BIG, "Q4_K_M")
    assert "<html" in text and "best here" in text
    assert f'href="/models/download/?repo={BIG}"' in text


@pytest.mark.parametrize(
    ("repo", "part", "says"),
    [
        (BIG, "Q2_K", "with one of: Q4_K_M"),
        ("nonsense", "", "Write owner/name"),
        ("some-org/Nowhere", "Q4_0", "There is no repository"),
        (TINY, "Q8_0", "at the hub cannot be used"),
        ("<script>alert(1)</script>", "x", "is no repository"),
    ],
)
def test_what_cannot_be_planned_says_why_in_its_place(
    admin: Client, rig: Host, hub: LocalHub, repo: str, part: str, says: str
) -> None:
    text = planned(admin, repo, part, **HTMX)
    assert says in text and 'role="alert"' in text and "<script>" not in text


def test_a_hub_without_ranges_is_told_on_the_page(
    admin: Client, rig: Host, hub: LocalHub
) -> None:
    hub.ranges = False
    text = planned(admin, BIG, "Q4_K_M", **HTMX)
    assert "sends whole files only" in text and "HF_ENDPOINT" in text


def test_without_an_engine_it_says_what_to_do(
    admin: Client, host: Host, hub: LocalHub
) -> None:
    assert "No engine that runs is known" in planned(admin, BIG, "Q4_K_M", **HTMX)


def test_only_who_manages_the_library_asks_the_hub(
    viewer: Client, operator: Client, rig: Host, hub: LocalHub
) -> None:
    for client in (viewer, operator):
        answer = client.get("/models/download/plan/", {"repo": BIG, "part": "Q4_K_M"})
        assert answer.status_code == 403
    assert not hub.requests
