"""Stand-ins for GPUs: there only when asked for, by the environment or by a button that says what
it means."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client

from deployments.models import Binding, Deployment, Engine, Model
from deployments.services import stand_ins
from gpus.discovery import save_rig
from gpus.models import Host
from gpus.sample import CardIdentity, NvmlState
from omni.errors import OmniError

NO_CARD = NvmlState("library_missing", "No NVIDIA driver was found.")
SWITCH = "/devices/stand-ins/switch/"


@pytest.fixture
def host(db: None, settings: object) -> Host:
    """A machine without a GPU, on which nobody has asked for stand-ins."""
    settings.OMNI_STAND_IN_DEVICES = 0  # type: ignore[attr-defined]
    found = Host.objects.create(name="testhost")
    save_rig(found, NO_CARD, ())
    return found


def names(host: Host) -> list[str]:
    return sorted(host.devices.filter(is_present=True).values_list("name", flat=True))


def used_by(host: Host, name: str) -> None:
    engine = Engine.objects.create(
        host=host, name="engine", path="/bin/true", flavour="llama.cpp"
    )
    row = Deployment.objects.create(
        name=name, host=host, engine=engine, strategy="independent"
    )
    model = Model.objects.create(name="m", path="/m.gguf", size_bytes=1, modified_ns=1)
    Binding.objects.create(deployment=row, role="model", model=model, devices=["RPC0"])


def test_without_a_gpu_the_cpu_is_the_only_device(host: Host) -> None:
    assert names(host) == ["CPU"]


def test_the_environment_switches_them_on_by_number(
    host: Host, settings: object
) -> None:
    settings.OMNI_STAND_IN_DEVICES = 3  # type: ignore[attr-defined]
    save_rig(host, NO_CARD, ())
    assert names(host) == ["CPU", "RPC0", "RPC1", "RPC2"]


def test_the_button_switches_them_on_and_the_next_look_keeps_them(
    admin: Client, host: Host
) -> None:
    assert admin.post(SWITCH, {"on": "1"}).status_code == 302
    save_rig(host, NO_CARD, ())
    assert names(host) == ["CPU", "RPC0", "RPC1"]


def test_the_button_switches_them_off_again(admin: Client, host: Host) -> None:
    stand_ins.stand_ins_on(host=host)
    assert admin.post(SWITCH, {"on": "0"}).status_code == 302
    save_rig(host, NO_CARD, ())
    assert names(host) == ["CPU"]


def test_stand_ins_in_use_are_not_switched_off(admin: Client, host: Host) -> None:
    stand_ins.stand_ins_on(host=host)
    used_by(host, "helper")
    with pytest.raises(OmniError, match="used by helper"):
        stand_ins.stand_ins_off(host=host)
    assert names(host) == ["CPU", "RPC0", "RPC1"]


def test_what_the_environment_switched_on_the_button_does_not_switch_off(
    host: Host, settings: object
) -> None:
    settings.OMNI_STAND_IN_DEVICES = 2  # type: ignore[attr-defined]
    with pytest.raises(OmniError, match="OMNI_STAND_IN_DEVICES=2"):
        stand_ins.stand_ins_off(host=host)


def test_a_host_with_a_gpu_gets_none(host: Host) -> None:
    save_rig(
        host,
        NvmlState("ok"),
        (CardIdentity(0, "GPU-1", "NVIDIA RTX", memory_total_bytes=1 << 35),),
    )
    with pytest.raises(OmniError, match="this host has one"):
        stand_ins.stand_ins_on(host=host)


@pytest.mark.parametrize("who", ["viewer", "operator"])
def test_only_who_may_add_devices_switches_them(
    who: str, host: Host, request: pytest.FixtureRequest
) -> None:
    client: Client = request.getfixturevalue(who)
    assert client.post(SWITCH, {"on": "1"}).status_code == 403
    assert "may add them" in client.get("/devices/stand-ins/").content.decode()
    assert names(host) == ["CPU"]


@pytest.mark.parametrize(
    ("is_apart", "says"),
    [(True, "network namespace of its own"), (False, "can take over the account")],
)
def test_the_button_says_who_can_reach_them(
    is_apart: bool,
    says: str,
    admin: Client,
    host: Host,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.web.views.devices.are_available", lambda: is_apart)
    page = admin.get("/devices/stand-ins/").content.decode()
    assert "Add two stand-ins" in page and says in page


def test_a_plan_on_stand_ins_that_are_off_says_where_to_switch_them_on(
    host: Host, tmp_path: Path
) -> None:
    from deployments.services.plans import plan_deployment

    used_by(host, "helper")
    Engine.objects.update(state=Engine.State.OK)
    with pytest.raises(OmniError, match="Stand-ins are switched on on the Rig page"):
        plan_deployment(Deployment.objects.get())
