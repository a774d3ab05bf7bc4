"""The Plan page: which way of running these models on these devices is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_http_methods

from deployments.planning.bars import BAR_PARTS, Bar, bar, tightest
from deployments.planning.memory.fit import PLACEMENT_SETTINGS
from deployments.planning.plan import InstancePlan, Reason, Severity, Verdict
from deployments.planning.roles import PROJECTOR
from deployments.planning.settings import SETTINGS
from deployments.services.comparing import SAME_COMMAND, Compared
from deployments.services.discovery import local_host
from deployments.services.runnable import command_text, runnable
from deployments.web.fix_words import fix_title
from deployments.web.planboard import Board, board, deploy, presets_for
from deployments.web.speed_shown import SpeedShown, speed_shown
from omni.errors import OmniError
from omni.htmx import HtmxHttpRequest, render_page_or_part, wants_part

WORDS = {
    "viable": "fits",
    "caution": "caution",
    "does_not_fit": "does not fit",
    "not_viable": "not possible",
}
NEEDS = "incomplete"
SAME = "the same"
MEMORY = "does_not_fit"
ICONS = {
    "viable": "check",
    "caution": "alert",
    "not_viable": "close",
    "needs": "question",
}
SEVERITIES = (Severity.ERROR, Severity.CAUTION, Severity.INFO)


@require_http_methods(["GET", "HEAD", "POST"])
def plan(request: HtmxHttpRequest) -> HttpResponse:
    """The choices stand in the query string; a POST deploys what one row shows for them."""
    shown = board(local_host(), request.GET)
    refused: dict[str, OmniError] = {}
    if request.method == "POST":
        strategy = request.POST.get("strategy", "")
        try:
            made = deploy(
                shown,
                strategy=strategy,
                name=request.POST.get("name", ""),
                user=request.user,
            )
            return redirect("deployments:deployment", made.name)
        except OmniError as error:
            refused[strategy] = error
    return _shown(request, shown, refused)


@require_http_methods(["GET", "HEAD"])
def plan_presets(request: HtmxHttpRequest) -> HttpResponse:
    """A part of the page: settings that suit the chosen model and devices, one press each."""
    try:
        form, found = presets_for(local_host(), request.GET)
    except OmniError:
        return render(request, "deployments/_plan_presets.html", {"form": None})
    # Where layers go each strategy decides for itself.
    auto = {key: str(SETTINGS[key].default) for key in PLACEMENT_SETTINGS}
    plain = {
        key: str(SETTINGS[key].default)
        for key in ("kv_cache_k", "kv_cache_v", "flash_attention")
    }
    shown = []
    for preset in found:
        changes = {**plain, **preset.settings, **auto}
        address = f"{reverse('deployments:plan')}?{form.query(changes)}"
        shown.append((preset, Fix(preset.title, address, changes)))
    return render(
        request, "deployments/_plan_presets.html", {"form": form, "presets": shown}
    )


def _shown(
    request: HtmxHttpRequest, shown: Board, refused: Mapping[str, OmniError]
) -> HttpResponse:
    address = f"{reverse('deployments:plan')}?{shown.form.query()}"
    cards = [_card(request, shown, outcome, refused) for outcome in shown.outcomes]
    listed, folded = _listed_and_folded(cards)
    context = {
        "board": shown,
        "form": shown.form,
        "address": address,
        "cards": cards,
        "listed": listed,
        "folded": folded,
        "folded_title": _folded_title(folded),
        "parts": _parts(shown),
        "devices": [
            (
                device,
                shown.stock.used.get(device.name),
                device.name in shown.form.wanted_devices,
            )
            for device in shown.stock.devices
        ],
        "problems": [
            error
            for strategy, error in refused.items()
            if strategy not in _names(shown)
        ],
    }
    response = render_page_or_part(
        request, "deployments/plan.html", "deployments/_plan.html", context
    )
    if wants_part(request):
        response["HX-Replace-Url"] = address
    return response


def _parts(shown: Board) -> list[tuple[str, str]]:
    """Those of a bar that the key explains: a projector's only where there is one."""
    has_projector = bool(shown.form.data.get(PROJECTOR))
    return [part for part in BAR_PARTS if has_projector or part[0] != PROJECTOR]


def _names(shown: Board) -> set[str]:
    return {outcome.key for outcome in shown.outcomes}


# --- rows -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fix:
    """One press that makes a reason go away: `changes` for the fields, `address` for browsers
    without script."""

    title: str
    address: str
    changes: Mapping[str, int | str]


@dataclass(frozen=True)
class Command:
    role: str
    html: SafeString


@dataclass(frozen=True)
class Card:
    outcome: Compared
    state: str
    word: str
    icon: str
    why_best: str
    reasons: list[tuple[Reason, Fix | None]]
    notes: list[tuple[Reason, Fix | None]]
    bars: list[Bar]
    commands: list[Command]
    speed: SpeedShown | None
    refused: OmniError | None
    name: str
    # What its errors say is that there is too little memory.
    is_too_much: bool = False
    # At first, before anybody opens or closes rows.
    is_open: bool = False
    # Of the fastest of all.
    speed_percent: float = 0.0

    @property
    def can_deploy(self) -> bool:
        return self.state in (Verdict.VIABLE, Verdict.CAUTION)

    @property
    def is_same(self) -> bool:
        """Another row has the same command."""
        return self.word == SAME

    @property
    def lacks(self) -> str:
        """In a sentence or two why it cannot run; '' where it can."""
        if self.outcome.error:
            return self.outcome.error.text
        if self.can_deploy or not self.reasons:
            return ""
        first, _ = self.reasons[0]
        return first.text

    @property
    def tightest(self) -> Bar | None:
        return tightest(self.bars)


def _listed_and_folded(cards: Sequence[Card]) -> tuple[list[Card], list[Card]]:
    """Those that can run, and the others; where none can, what only lacks memory is listed."""
    can_any = any(card.can_deploy for card in cards)
    listed = [
        card for card in cards if card.can_deploy or (card.is_too_much and not can_any)
    ]
    return listed, [card for card in cards if card not in listed]


def _folded_title(folded: Sequence[Card]) -> str:
    """For example `3 that cannot, with what each lacks; 1 that is the same as another`."""
    same = sum(card.is_same for card in folded)
    cannot = len(folded) - same
    parts = []
    if cannot:
        parts.append(f"{cannot} that cannot, with what {_each(cannot)} lacks")
    if same:
        parts.append(f"{same} with the same command as another")
    return "; ".join(parts)


def _each(count: int) -> str:
    if count == 1:
        return "it"
    return "each"


def _card(
    request: HtmxHttpRequest,
    shown: Board,
    outcome: Compared,
    refused: Mapping[str, OmniError],
) -> Card:
    found = outcome.plan
    key = outcome.key
    state = str(found.verdict) if found else "needs"
    if found:
        reasons = sorted(
            found.reasons, key=lambda reason: SEVERITIES.index(reason.severity)
        )
    else:
        reasons = []
    # Beside an error a caution is no news.
    telling = [Severity.ERROR]
    if state != "not_viable":
        telling.append(Severity.CAUTION)
    errors = {reason.code for reason in reasons if reason.severity == Severity.ERROR}
    is_too_much = errors == {MEMORY}
    typed = request.POST.get("name", "") if key in refused else ""
    return Card(
        outcome=outcome,
        state=state,
        word=_verdict_word(outcome, is_too_much=is_too_much),
        icon=ICONS[state],
        why_best=shown.why_best if outcome is shown.outcomes[0] else "",
        reasons=[
            (each, _fix(shown, each)) for each in reasons if each.severity in telling
        ],
        notes=[
            (each, _fix(shown, each))
            for each in reasons
            if each.severity not in telling
        ],
        # Where something else than memory stands against it, its memory is beside the point.
        bars=(
            [bar(use) for use in found.devices]
            if found and (state != "not_viable" or is_too_much)
            else []
        ),
        commands=(
            [
                Command(each.role, _command(each, outcome.name))
                for each in found.instances
            ]
            if found
            else []
        ),
        speed=speed_shown(found.predicted, outcome.runs) if found else None,
        refused=refused.get(key),
        name=typed or outcome.name,
        is_too_much=is_too_much,
        is_open=key in refused or outcome is shown.outcomes[0],
        speed_percent=round(
            100 * _speed(outcome) / (max(map(_speed, shown.outcomes)) or 1), 1
        ),
    )


def _verdict_word(outcome: Compared, *, is_too_much: bool) -> str:
    if outcome.plan and is_too_much:
        return WORDS[MEMORY]
    if outcome.plan:
        return WORDS[outcome.plan.verdict]
    if outcome.error and outcome.error.code == SAME_COMMAND:
        return SAME
    return NEEDS


def _speed(outcome: Compared) -> float:
    if outcome.plan:
        return outcome.plan.predicted.decode_tps or 0.0
    return 0.0


def _fix(shown: Board, reason: Reason) -> Fix | None:
    changes = {key: value for key, value in reason.changes.items() if key in SETTINGS}
    if not changes:
        return None
    address = f"{reverse('deployments:plan')}?{shown.form.query(changes)}"
    return Fix(fix_title(changes), address, changes)


def _command(planned: InstancePlan, name: str) -> SafeString:
    """As on a deployment's page; the name is marked, because it changes with what is typed into the
    row."""
    command = runnable(planned, name)
    words = [_word(command_text([word], {}), name) for word in command.argv]
    before = escape(command_text([], command.env).strip())
    if before:
        words.insert(0, before)
    # Each word is escaped by itself.
    return mark_safe(" ".join(words))


def _word(word: str, name: str) -> SafeString:
    """The name is a word of its own, or the folder or the socket that is named after it."""
    before, found, after = word.rpartition(name)
    home = settings.OMNI_HOME
    is_whole = not before and not after
    is_folder = before == f"{home.slots}/" and not after
    is_socket = before == f"{home.sockets}/" and after.endswith(".sock")
    if not found or not (is_whole or is_folder or is_socket):
        return escape(word)
    return format_html("{}<span data-alias>{}</span>{}", before, name, after)
