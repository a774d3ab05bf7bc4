"""A driver for tests: the real bindings load a stand-in library whose cards a scenario file
describes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest
from django.conf import settings

from gpus.models import Host
from gpus.nvml_events import XidWatch
from tests.fakes.nvml import FakeCard, build, scenario


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a driver that does not know the versioned temperature call."""
    return build(tmp_path_factory.mktemp("old-nvml"), "WITHOUT_TEMPERATURE_V")


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`cards(card, …, init=0)`: what the driver answers from now on."""
    path = tmp_path / "scenario.txt"
    monkeypatch.setenv("FAKE_NVML_SCENARIO", str(path))

    def write(*present: FakeCard, init: int = 0) -> None:
        scenario(path, *present, init=init)

    return write


def use(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process's bindings forget the library they loaded and take this one."""
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})


@pytest.fixture
def driver(
    library: Path, cards: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """The same, for this process and for the children it starts."""
    use(library, monkeypatch)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    return cards


@pytest.fixture(autouse=True)
def no_watch_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A thread that waits for Xid errors ends with the test whose sampler began it."""
    started: list[XidWatch] = []
    start = XidWatch.start

    def noted(watch: XidWatch) -> None:
        started.append(watch)
        start(watch)

    monkeypatch.setattr(XidWatch, "start", noted)
    yield
    for watch in started:
        watch.stop()


@pytest.fixture
def host(db: None) -> Host:
    return Host.objects.create(name=settings.OMNI_HOST_NAME)
