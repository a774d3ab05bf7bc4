"""What the Plan page shows: a query in, the choices it stands for and every strategy's plan of them
out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

from deployments.models import Deployment, Model
from deployments.names import LENGTH, ROOM_FOR_NUMBERS
from deployments.planning.plan import Verdict
from deployments.planning.presets import Preset, presets
from deployments.planning.ranking import rank, why_best
from deployments.planning.roles import PROJECTOR
from deployments.planning.settings import SETTINGS
from deployments.services.checks import free_name, taken_names
from deployments.services.comparing import Choice, Compared, compare
from deployments.services.deployments import deployment_launch
from deployments.services.plans import Setup, model_facts, rig_facts, shape_of
from deployments.strategies import STRATEGIES
from deployments.web.plan_form import (
    DEVICE,
    DRAFT,
    DRAFT_DEVICE,
    ENGINE,
    MODEL,
    PlanForm,
    Stock,
    read_stock,
)
from gpus.models import Host
from omni.errors import OmniError


@dataclass(frozen=True)
class Board:
    """`outcomes` are sorted, the best first; there are none while the form is wrong or something is
    missing.

    `why_best` is why the first outcome is the best one, '' when none is.
    """

    stock: Stock
    form: PlanForm
    outcomes: tuple[Compared, ...] = ()
    why_best: str = ""

    def of(self, strategy: str) -> Compared:
        """The row of this key, which for a strategy's best row is its name.

        Raises OmniError (unknown_strategy, not_planned).
        """
        for outcome in self.outcomes:
            if outcome.key == strategy:
                return outcome
        if strategy in STRATEGIES:
            raise OmniError(
                "not_planned",
                "Something in the choices is not right.",
                "The fields say what.",
            )
        raise OmniError(
            "unknown_strategy",
            f"There is no strategy {strategy!r}.",
            "Choose one that is shown.",
        )


def board(host: Host, query: QueryDict) -> Board:
    stock = read_stock(host)
    form = PlanForm(query, stock)
    if not stock.models or not stock.engines or not form.is_valid():
        return Board(stock, form)
    choice = _choice(stock, form)
    outcomes = compare(rig_facts(host), choice, _names(choice.model))
    outcomes.sort(key=lambda outcome: rank(outcome.plan))
    plans = [(outcome.title, outcome.plan) for outcome in outcomes if outcome.plan]
    return Board(stock, form, tuple(outcomes), why_best(plans))


def presets_for(host: Host, query: QueryDict) -> tuple[PlanForm, list[Preset]]:
    """Presets for the chosen model on the chosen devices; none while those are not right."""
    stock = read_stock(host)
    form = PlanForm(query, stock)
    form.is_valid()
    if {MODEL, DEVICE} <= set(form.cleaned_data):
        choice = form.cleaned_data
    else:
        choice = None
    model = Model.objects.filter(name=choice[MODEL]).first() if choice else None
    if choice is None or model is None:
        return form, []
    rig = rig_facts(host)
    wanted = {
        *choice[DEVICE],
        *(name for name, device in rig.items() if device.kind == "cpu"),
    }
    devices = [device for name, device in rig.items() if name in wanted]
    return form, presets(shape_of(model), model_facts(model), devices)


def _choice(stock: Stock, form: PlanForm) -> Choice:
    data = form.cleaned_data
    models = {
        model.name: model
        for model in Model.objects.filter(
            name__in=[data[MODEL], data[DRAFT], data[PROJECTOR]]
        )
    }
    order = [device.name for device in stock.devices]
    return Choice(
        engine=next(
            engine for engine in stock.engines if str(engine.pk) == data[ENGINE]
        ),
        model=models[data[MODEL]],
        draft=models.get(data[DRAFT]),
        devices=sorted(data[DEVICE], key=order.index),
        draft_device=data[DRAFT_DEVICE],
        projector=models.get(data[PROJECTOR]),
        settings=form.settings(),
    )


def _names(model: Model) -> dict[str, str]:
    """A free name for what each strategy would deploy; the commands carry it."""
    taken = taken_names()
    first = next(iter(STRATEGIES))
    ends = {
        name: "" if name == first else f"-{name.replace('_', '-')}"
        for name in STRATEGIES
    }
    wanted = {
        name: f"{model.name[: LENGTH['deployments'] - ROOM_FOR_NUMBERS - len(end)]}{end}"
        for name, end in ends.items()
    }
    return {name: free_name(base, taken) for name, base in wanted.items()}


def deploy(board: Board, *, strategy: str, name: str, user: Any = None) -> Deployment:
    """Creates and starts what is shown. Raises OmniError that says what stands against it."""
    outcome = board.of(strategy)
    if outcome.error:
        raise outcome.error
    plan = outcome.plan
    if plan is None or plan.verdict == Verdict.NOT_VIABLE:
        raise OmniError(
            "not_viable",
            "This does not fit as it is set.",
            "Change what the reasons name.",
        )
    # What the planner chose for itself is kept: planned again at the start, the command is the one
    # shown here.
    chosen = {key: value for key, value in plan.settings.items() if key in SETTINGS}
    engine = next(
        e for e in board.stock.engines if str(e.pk) == board.form.cleaned_data[ENGINE]
    )
    setup = Setup(
        engine.host,
        name.strip() or outcome.name,
        outcome.strategy.name,
        engine,
        outcome.members,
        {**board.form.settings(), **chosen},
    )
    # Both or neither: what has no place at the moment does not stay behind under the name.
    return deployment_launch(setup, user)
