"""Checks each engine once after its start, beside the agent's ticks, and keeps what was found."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.models import Binding, Instance, ReferenceAnswer
from deployments.states import DEFAULT_STRATEGY, Judgement
from deployments.supervision import launch
from deployments.supervision.answers import Answer, Check, is_degenerate
from deployments.supervision.decision import Observed
from deployments.supervision.log_reading import Cause
from deployments.supervision.process import Record
from deployments.supervision.verify import built_otherwise, check_answer

# A mute engine takes three minutes to be given up; the others are not to wait for it.
MOST_CHECKS = 8
WRONG = "wrong_answers"
FIX = (
    "Use other shares of the devices or another strategy; the model itself is fine where it runs as"
    " independent."
)


@dataclass(frozen=True)
class Found:
    check: Check
    otherwise: str


class Checker:
    """Belongs to the agent's thread; only the questions themselves run beside it."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(MOST_CHECKS, thread_name_prefix="check")
        self.asked: dict[int, tuple[int, Future[Found]]] = {}

    def checked(self, instance: Instance, record: Record, seen: Observed) -> Observed:
        """What is seen of an engine that says it is ready, with what its first answer tells."""
        ticks = record.ticks or 0
        if instance.checked_ticks == ticks:
            self.asked.pop(instance.pk, None)
            return seen
        known, future = self.asked.get(instance.pk, (None, None))
        if future is None or known != ticks:
            reference = _reference(instance)
            future = self.pool.submit(
                _ask, record, launch.log_path(instance), reference
            )
            self.asked[instance.pk] = (ticks, future)
        if not future.done():
            return replace(seen, is_checked=False)
        del self.asked[instance.pk]
        return self._keep(instance, ticks, future.result(), seen)

    def _keep(
        self, instance: Instance, ticks: int, found: Found, seen: Observed
    ) -> Observed:
        check = found.check
        instance.checked_ticks, instance.judgement = ticks, str(check.judgement)
        if check.judgement in (Judgement.EQUAL, Judgement.ALONE):
            loud = ""
        else:
            loud = check.text
        instance.warning = " ".join(filter(None, (found.otherwise, loud)))
        instance.save(update_fields=["checked_ticks", "judgement", "warning"])
        if check.judgement == Judgement.GARBAGE and not _is_the_models_own(instance):
            return replace(seen, wrong=Cause(WRONG, check.text, FIX, permanent=True))
        if _is_reference(instance) and check.answer and not found.otherwise:
            _remember(instance, check.answer)
        return seen


def _ask(record: Record, log: Path, reference: Answer | None) -> Found:
    address = record.address
    launch = record.launch
    if address is None:
        return Found(
            Check(Judgement.UNKNOWN, "Its answer could not be checked: it has gone."),
            "",
        )
    check = check_answer(address, launch, reference)
    return Found(check, built_otherwise(address, launch, log))


def _is_reference(instance: Instance) -> bool:
    return bool(
        instance.deployment and instance.deployment.strategy == DEFAULT_STRATEGY
    )


def _is_the_models_own(instance: Instance) -> bool:
    """Whether nonsense is how this model answers: nothing is split, and it is not known to answer
    better."""
    known = _kept(instance)
    return _is_reference(instance) and (known is None or is_degenerate(known.tokens))


def _reference(instance: Instance) -> Answer | None:
    """What to compare with: nothing for the reference itself, which is only looked at for
    nonsense."""
    if _is_reference(instance):
        return None
    known = _kept(instance)
    if known:
        return Answer(tuple(known.tokens), tuple(known.pieces))
    return None


def _kept(instance: Instance) -> ReferenceAnswer | None:
    binding = Binding.objects.filter(
        deployment=instance.deployment, role=instance.role
    ).first()
    if binding:
        return ReferenceAnswer.objects.filter(model=binding.model_id).first()
    return None


def _remember(instance: Instance, answer: Answer) -> None:
    binding = Binding.objects.filter(
        deployment=instance.deployment, role=instance.role
    ).first()
    if binding and instance.deployment:
        ReferenceAnswer.objects.update_or_create(
            model_id=binding.model_id,
            defaults={
                "engine_id": instance.deployment.engine_id,
                "tokens": list(answer.tokens),
                "pieces": list(answer.pieces),
            },
        )
