"""The same choice planned by every strategy, on one reading of the devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.conf import settings as django_settings

from deployments.models import Engine, Model
from deployments.planning.corrections import Past, PastRun
from deployments.planning.plan import DeviceFacts, Plan
from deployments.planning.ranking import is_about_equal, rank
from deployments.planning.roles import DRAFT, MAIN, PROJECTOR, assign
from deployments.services.fitting import past_of
from deployments.services.plans import Members, plan_on
from deployments.services.speeds import speeds_of
from deployments.strategies import STRATEGIES
from deployments.strategies.base import Strategy
from omni.errors import OmniError

# Of a strategy that comes to what a plainer one shows already.
SAME_COMMAND = "same_command"


@dataclass(frozen=True)
class Choice:
    """What a person chose. `draft_device` '' leaves the choice to Omni."""

    engine: Engine
    model: Model
    devices: Sequence[str]
    draft: Model | None = None
    draft_device: str = ""
    # With which the model sees or hears.
    projector: Model | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Compared:
    """One strategy's plan under the name its commands carry, or why there is none.

    `device` is named where the strategy takes one device and has a row for each that makes a
    difference; `key` is the row's own, the strategy's name for the best of its rows.
    """

    strategy: Strategy
    name: str
    members: Members
    plan: Plan | None = None
    error: OmniError | None = None
    device: str = ""
    is_best_of_rows: bool = True
    # What its speeds are held against, the newest first.
    runs: tuple[PastRun, ...] = ()

    @property
    def key(self) -> str:
        if self.is_best_of_rows:
            return self.strategy.name
        return f"{self.strategy.name}-{self.device}"

    @property
    def title(self) -> str:
        if self.device:
            return f"{self.strategy.title} on {self.device}"
        return self.strategy.title


def compare(
    devices: Mapping[str, DeviceFacts],
    choice: Choice,
    names: Mapping[str, str],
    past: Past | None = None,
) -> list[Compared]:
    """Every strategy's plan of the choice; of those with one command the plainest has it.

    `names` are by strategy, `devices` all those of the host; `past` is what was measured there,
    which is read where it is not given.
    """
    return list(each_command_once(every_plan(devices, choice, names, past)))


def every_plan(
    devices: Mapping[str, DeviceFacts],
    choice: Choice,
    names: Mapping[str, str],
    past: Past | None = None,
) -> list[Compared]:
    """The same, with commands that come more than once."""
    found: list[Compared] = []
    past = past_of(choice.engine.host) if past is None else past
    for strategy in STRATEGIES.values():
        name = names[strategy.name]
        alone = _each_alone(devices, choice)
        if strategy.takes_one_device and len(alone) > 1:
            found += _rows(
                [_compared(devices, strategy, each, name, past) for each in alone],
                alone,
            )
        else:
            found.append(_compared(devices, strategy, choice, name, past))
    return found


def each_command_once(rows: Sequence[Compared]) -> Iterator[Compared]:
    """The same rows, of which the plainest come first; what repeats a command says whose it is."""
    first: dict[str, Compared] = {}
    for row in rows:
        command = _command(row)
        if not command or first.setdefault(command, row) is row:
            yield row
            continue
        same = first[command].title
        error = OmniError(
            SAME_COMMAND,
            f"Here it comes to the same command as {same}.",
            f"Look at {same}; with other devices or settings the two differ.",
        )
        yield replace(row, plan=None, error=error, runs=())


def _command(row: Compared) -> str:
    """The same for rows whose processes would be started alike but for the deployment's name; ''
    where there are none."""
    if not row.plan or not row.plan.instances:
        return ""
    processes = [
        (each.argv, sorted(each.env.items()), sorted(each.files.items()))
        for each in row.plan.instances
    ]
    return repr(_unnamed(processes, row.name))


def _unnamed(data: Any, name: str) -> Any:
    """The same data without the deployment's name, which may be a word or a folder's name."""
    if isinstance(data, Mapping):
        return {key: _unnamed(value, name) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_unnamed(value, name) for value in data]
    if data in (name, f"{django_settings.OMNI_HOME.slots}/{name}"):
        return None
    return data


def _each_alone(devices: Mapping[str, DeviceFacts], choice: Choice) -> list[Choice]:
    """The choice on each of its devices alone, the CPU last: of equals the first is kept."""
    names = sorted(choice.devices, key=lambda name: devices[name].kind == "cpu")
    return [replace(choice, devices=[name]) for name in names]


def _rows(plans: Sequence[Compared], choices: Sequence[Choice]) -> list[Compared]:
    """Those that differ, the best first; of equal ones the first."""
    named = [
        replace(each, device=choice.devices[0])
        for each, choice in zip(plans, choices, strict=True)
    ]
    rows: list[Compared] = []
    for each in sorted(named, key=lambda row: rank(row.plan)):
        if not any(_is_alike(each, row) for row in rows):
            rows.append(replace(each, is_best_of_rows=not rows))
    return rows


def _is_alike(one: Compared, other: Compared) -> bool:
    if one.plan is None or other.plan is None:
        return one.plan is other.plan
    return is_about_equal(one.plan, other.plan)


def _projector(
    strategy: Strategy, choice: Choice
) -> dict[str, tuple[Model, Sequence[str]]]:
    """Its role, where one is chosen. Raises OmniError for a strategy that takes none."""
    if choice.projector is None:
        return {}
    if not strategy.takes_projector:
        raise OmniError(
            "takes_no_projector",
            f"{strategy.title} answers texts only: the engine loads no projector for it.",
            "Choose no projector.",
        )
    return {PROJECTOR: (choice.projector, [])}


def _compared(
    devices: Mapping[str, DeviceFacts],
    strategy: Strategy,
    choice: Choice,
    name: str,
    past: Past,
) -> Compared:
    models = {MAIN: choice.model, DRAFT: choice.draft or choice.model}
    members: dict[str, tuple[Model, Sequence[str]]] = {}
    try:
        parts = assign(
            strategy.roles,
            [devices[each] for each in choice.devices],
            has_draft=choice.draft is not None,
            draft_device=choice.draft_device,
        )
        members = {
            role: (models[part.source], list(part.devices))
            for role, part in parts.items()
        } | _projector(strategy, choice)
        found = plan_on(
            devices,
            name=name,
            strategy=strategy.name,
            engine=choice.engine,
            members=members,
            settings=choice.settings,
            past=past,
        )
    except OmniError as error:
        return Compared(strategy, name, members, error=error)
    if not found.instances:
        return Compared(strategy, name, members, found)
    engine = choice.engine
    playing = {role: model for role, (model, _) in members.items()}
    speeds = speeds_of(found, playing, engine.flavour, engine.build, past)
    return Compared(strategy, name, members, found, runs=speeds.runs)
