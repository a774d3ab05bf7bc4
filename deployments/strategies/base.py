"""What a strategy is: its roles, what it needs, its plan, and how a request passes through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from deployments.planning.plan import (
    InstancePlan,
    Member,
    Plan,
    PlanRequest,
    Predicted,
    Reason,
    Severity,
    Verdict,
)
from deployments.planning.roles import PROJECTOR
from deployments.planning.settings import Setting
from omni.errors import OmniError


class Strategy(ABC):
    """One way to place models on devices. Pure: the same request always gives the same plan."""

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    # Of the roles, those that may be left out.
    optional_roles: ClassVar[tuple[str, ...]] = ()
    # The role whose instance answers requests.
    serving_role: ClassVar[str]
    # What it does with the devices that somebody ticks for its only model.
    devices_help: ClassVar[str] = (
        "The model's layers are spread over the devices you tick."
    )
    # It runs on one of the devices that are chosen; the others are alternatives.
    takes_one_device: ClassVar[bool] = False
    # Of the settings that are marked of_strategy, those that it looks at.
    own_settings: ClassVar[frozenset[str]] = frozenset()
    # Works with a model that gives vectors or scores instead of text.
    serves_without_text: ClassVar[bool] = False
    # Leaves a part of the model to the host on purpose.
    uses_host: ClassVar[bool] = False
    # How a request passes through the instances (gateway.table.Passage).
    passage: ClassVar[str] = "direct"

    @abstractmethod
    def plan(self, request: PlanRequest) -> Plan:
        """Raises OmniError when the request cannot be understood; what does not fit is a verdict,
        not an error."""

    @property
    def is_plain(self) -> bool:
        """One model as it is: nothing drafts for it, and nobody reads its prompts elsewhere."""
        return len(self.roles) == 1

    @property
    def takes_projector(self) -> bool:
        """Whether its model can see or hear by a second file: llama-server neither drafts nor
        saves slots with images in the context."""
        return self.is_plain

    @property
    def model_roles(self) -> tuple[str, ...]:
        """Those that a model can be named for."""
        return (*self.roles, PROJECTOR) if self.takes_projector else self.roles

    def has_own(self, setting: Setting) -> bool:
        return setting.of_strategy and setting.key in self.own_settings

    def looks_at(self, setting: Setting) -> bool:
        return not setting.of_strategy or self.has_own(setting)

    def check_roles(self, given: Iterable[str]) -> None:
        """Raises OmniError (wrong_roles) unless every role that is needed is there, and no
        other."""
        needed = set(self.roles) - set(self.optional_roles)
        if not needed <= set(given) <= set(self.model_roles):
            names = ", ".join(
                r if r in needed else f"{r} (optional)" for r in self.model_roles
            )
            text = (
                f"The strategy {self.name} has the roles {names}; given:"
                f" {', '.join(sorted(given)) or 'none'}."
            )
            raise OmniError(
                "wrong_roles", text, "Name one model and its devices for each role."
            )

    def members(self, request: PlanRequest) -> tuple[Member | None, ...]:
        """The member of each role, in the order of `roles`.

        Raises OmniError (wrong_roles, no_device).
        """
        self.check_roles(request.members)
        for role, member in request.members.items():
            if not member.devices and role != PROJECTOR:
                raise OmniError(
                    "no_device",
                    f"{member.name} has no device.",
                    "Choose at least one; CPU is one too.",
                )
        return tuple(request.members.get(role) for role in self.roles)

    def only_member(self, request: PlanRequest) -> Member:
        """Of a strategy with one role."""
        (member,) = self.members(request)
        assert member is not None
        return member


def verdict_of(reasons: Sequence[Reason]) -> Verdict:
    """The worst of the reasons decides."""
    severities = {reason.severity for reason in reasons}
    if Severity.ERROR in severities:
        return Verdict.NOT_VIABLE
    if Severity.CAUTION in severities:
        return Verdict.CAUTION
    return Verdict.VIABLE


def outlook(predicted: Predicted, reasons: Sequence[Reason]) -> Predicted:
    """What cannot run has no speed."""
    if verdict_of(reasons) == Verdict.NOT_VIABLE:
        return Predicted()
    return predicted


# The one refusal that leaves a command worth seeing: the strategy is what was meant, and there is
# too little memory.
DOES_NOT_FIT = "does_not_fit"


# Errors that a command can have all the same: too much memory, or slower than without. An
# administrator may try both.
TRYABLE = frozenset({DOES_NOT_FIT, "drafting_never_pays", "handover_never_pays"})


def processes(
    instances: Sequence[InstancePlan], reasons: Sequence[Reason]
) -> tuple[InstancePlan, ...]:
    """What cannot be at all has no command: it would be that of another strategy."""
    refusals = {reason.code for reason in reasons if reason.severity == Severity.ERROR}
    if refusals - TRYABLE:
        return ()
    return tuple(instances)


def info(code: str, text: str, fix: str = "", **changes: int | str) -> Reason:
    return Reason(code, Severity.INFO, text, fix, changes)


def caution(code: str, text: str, fix: str = "", **changes: int | str) -> Reason:
    return Reason(code, Severity.CAUTION, text, fix, changes)


def error(code: str, text: str, fix: str = "", **changes: int | str) -> Reason:
    return Reason(code, Severity.ERROR, text, fix, changes)
