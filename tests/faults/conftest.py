"""Rows of the fault table, the deployment each is about, and the table that is written at the
end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from deployments.models import Deployment, Engine, Model
from deployments.services.deployments import deployment_create
from gpus.models import Device, Host
from tests.faults.rig import Rig
from tests.faults.table import ARTIFACT, Measured, Row
from tests.supervision import conftest as supervision

engine, host, model, ticker = (
    supervision.engine,
    supervision.host,
    supervision.model,
    supervision.ticker,
)


@pytest.fixture(scope="session")
def measured() -> Iterator[Measured]:
    """What came out of each row; written to tests/artifacts/faults.txt."""
    table = Measured()
    yield table
    ARTIFACT.parent.mkdir(exist_ok=True)
    ARTIFACT.write_text(table.text())
    print(f"\n{table.text()}")


@pytest.fixture
def make_rig(
    host: Host,
    engine: Engine,
    model: Model,
    ticker: supervision.Ticker,
    admin: Client,
    tmp_path: Path,
) -> Iterator[Callable[[Row], Rig]]:
    """Makes the deployment that a row is about, and its rig."""
    made: list[Rig] = []

    def make(row: Row) -> Rig:
        made.append(
            Rig(row, _deployment(row.on, host, engine, model), ticker, admin, tmp_path)
        )
        return made[0]

    yield make
    supervision.end_everything()
    for rig in made:
        rig.undo.close()
        rig.at_last.close()


def _deployment(on: str, host: Host, engine: Engine, model: Model) -> Deployment:
    basic: dict[str, object] = {"context": 2048, "threads": 1}
    if on == "pair":
        return deployment_create(
            name="pair",
            strategy="prefill_decode",
            engine=engine,
            members={"prefill": (model, ["CPU"]), "decode": (model, ["CPU"])},
            settings=basic | {"parallel": 2, "handover_min": 64},
        )
    if on != "CPU":
        Device.objects.create(host=host, name=on, kind="rpc", is_stand_in=True)
    return deployment_create(
        name="smol",
        strategy="independent",
        engine=engine,
        members={"model": (model, [on])},
        settings=basic,
    )


@pytest.fixture(autouse=True)
def empty_records() -> None:
    """Of the tests before this one: a killed engine's record and socket may still lie there."""
    home = settings.OMNI_HOME
    for path in (*(home.run / "instances").glob("*"), *home.sockets.glob("*.sock")):
        path.unlink()
