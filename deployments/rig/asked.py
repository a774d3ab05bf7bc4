"""What the rig is wanted for, as it was asked last, and the advice on it.

Working advice out takes seconds; it is kept for as long as nothing that it rests on has changed.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Any

from django.db.models import Max

from deployments.advice.purposes import Purpose, Question
from deployments.formats.kinds import Kind
from deployments.models import Deployment, Engine, Measurement, Model, RigQuestion
from deployments.planning.corrections import Past
from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceFacts
from deployments.rig.purposes_file import parse_purposes, purposes_text
from deployments.rig.words import RigError
from deployments.services.advising import Advice, advise
from deployments.services.fitting import past_of
from deployments.services.headroom import Nearest, longest_context, nearest
from deployments.services.layout_plans import Bench, Planned
from deployments.services.plans import rig_facts
from gpus.models import Host
from omni.roles.rights import OPERATE, require

# Advice that is kept: what was asked, and a few what-ifs beside it.
MOST_KEPT = 6
USUAL_PURPOSE = "chat"


# --- the question ---------------------------------------------------------------------------------
def stored_question(host: Host) -> Question | None:
    """None where nobody has asked yet, or in words that this version does not read."""
    row = RigQuestion.objects.filter(host=host).first()
    if row is None:
        return None
    try:
        return parse_purposes(row.text)
    except RigError:
        return None


def question_save(*, host: Host, question: Question, user: Any = None) -> RigQuestion:
    require(user, OPERATE)
    values = {"text": purposes_text(question), "asked_by": user}
    row, _ = RigQuestion.objects.update_or_create(host=host, defaults=values)
    return row


def usual_question(host: Host) -> Question | None:
    """For somebody who has not asked yet: to chat with the largest model that one device holds.

    None where the library has no model that writes text.
    """
    models = Model.deployable().filter(kind=Kind.TEXT).order_by("-n_params", "name")
    named = list(models.values_list("name", "size_bytes"))
    if not named:
        return None
    room = _room(rig_facts(host, live=False))
    # What fills a device to the brim has no room for a conversation.
    fitting = [name for name, size in named if size < 0.9 * room]
    chosen = fitting[0] if fitting else named[-1][0]
    return Question((Purpose(USUAL_PURPOSE, (chosen,)),))


def _room(devices: dict[str, DeviceFacts]) -> int:
    """Bytes of the largest card; of the host, where there is no card."""
    sizes = {name: each.total_bytes or 0 for name, each in devices.items()}
    cards = [size for name, size in sizes.items() if name != CPU]
    return max(cards, default=sizes.get(CPU, 0))


# --- the answer -----------------------------------------------------------------------------------
@dataclass
class WorkedOut:
    """Advice, and what is worked out of it only where somebody looks at it."""

    advice: Advice
    bench: Bench
    _contexts: dict[str, int | None] = field(default_factory=dict)
    _nearest: dict[int, Nearest | None] = field(default_factory=dict)

    def longest_context(self, planned: Planned) -> int | None:
        """Of one of its layouts, in tokens for each user."""
        if planned.key not in self._contexts:
            self._contexts[planned.key] = longest_context(planned, self.bench)
        return self._contexts[planned.key]

    def nearest(self, planned: Planned) -> Nearest | None:
        """The smallest change with which one of its layouts fits that does not."""
        # Layouts live as long as the advice.
        if id(planned) not in self._nearest:
            self._nearest[id(planned)] = nearest(planned, self.bench)
        return self._nearest[id(planned)]


_kept: OrderedDict[str, WorkedOut] = OrderedDict()
_lock = Lock()


def advice_on(question: Question, host: Host) -> WorkedOut:
    """As `advise`, worked out once. Raises OmniError (unknown_model, no_engine, unknown_card …)."""
    key = _rests_on(question, host)
    # Two that ask at the same time would work it out twice.
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
        advice = advise(question, host)
        past = Past(()) if advice.is_what_if else past_of(host)
        _kept[key] = WorkedOut(advice, Bench(advice.devices, past))
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
        return _kept[key]


def is_known(question: Question, host: Host) -> bool:
    """Whether advice on it has been worked out and still holds."""
    return _rests_on(question, host) in _kept


def _rests_on(question: Question, host: Host) -> str:
    """The same for as long as the advice is."""
    names = {name for purpose in question.purposes for name in purpose.models}
    asked = Model.objects.filter(name__in=names).order_by("name")
    engines = Engine.objects.filter(host=host).order_by("pk")
    parts = (
        purposes_text(question),
        rig_facts(host, live=False),
        list(asked.values_list("name", "path", "size_bytes", "modified_ns", "state")),
        # Any of them may draft.
        Model.objects.aggregate(last=Max("pk")),
        Model.objects.count(),
        list(engines.values_list("name", "path", "build", "state", "flags")),
        Measurement.objects.filter(host=host).aggregate(last=Max("pk")),
        # What is up holds memory, and reasons name it.
        list(
            Deployment.objects.filter(trial_of__isnull=True)
            .order_by("pk")
            .values_list("pk", "desired")
        ),
    )
    return sha256(repr(parts).encode()).hexdigest()
