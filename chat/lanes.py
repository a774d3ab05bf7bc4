"""The lanes of a conversation: what can answer in one, and adding, changing and removing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, QuerySet

from chat.comparison import Shared, shared
from chat.models import MOST_LANES, Conversation, Lane, Message
from deployments.formats.kinds import article
from deployments.models import Deployment, Route
from deployments.states import UNLOADED, InstanceState
from deployments.strategies import strategy_title
from omni.errors import OmniError
from omni.roles.rights import CHAT, require

Target = Deployment | Route
# What was unloaded is loaded again by the first question.
ANSWERING = (InstanceState.READY, UNLOADED)


@dataclass(frozen=True)
class LaneOption:
    """One line of the menu from which a lane is chosen."""

    name: str
    strategy: str
    state: str
    leads_to: str  # a route's deployment; empty for a deployment
    is_taken: bool

    @property
    def can_be_chosen(self) -> bool:
        return self.state in ANSWERING and not self.is_taken


def choices_for(lanes: Sequence[Lane]) -> list[LaneOption]:
    """All deployments and routes, what can answer now first; a route that a deployment's name hides
    is left out."""
    deployments = Deployment.giving_text().prefetch_related("instances")
    known = {deployment.pk: deployment for deployment in deployments}
    taken = {("d", lane.deployment_id) for lane in lanes} | {
        ("r", lane.route_id) for lane in lanes
    }
    found = [_choice(d.name, d, "", ("d", d.pk) in taken) for d in known.values()]
    names = {deployment.name for deployment in known.values()}
    for route in Route.objects.all():
        if (to := known.get(route.deployment_id)) and route.name not in names:
            found.append(_choice(route.name, to, to.name, ("r", route.pk) in taken))
    return sorted(found, key=_order)


def _order(choice: LaneOption) -> tuple[bool, bool, str]:
    """What is ready first, deployments before routes."""
    return choice.state != InstanceState.READY, bool(choice.leads_to), choice.name


def _choice(
    name: str, deployment: Deployment, leads_to: str, is_taken: bool
) -> LaneOption:
    state = UNLOADED if deployment.is_unloaded else str(deployment.state)
    return LaneOption(
        name, strategy_title(deployment.strategy), state, leads_to, is_taken
    )


def find_target(name: str) -> Target:
    """A deployment goes before a route of its name, as in the gateway. Raises OmniError."""
    found = (
        Deployment.objects.filter(name=name, is_deleting=False).first()
        or Route.objects.filter(name=name).first()
    )
    if found is None:
        raise OmniError(
            "unknown_deployment",
            "The deployment for this chat was not found.",
            "Choose one from the list.",
        )
    runs = found.deployment if isinstance(found, Route) else found
    if not runs.gives_text:
        text = f"{found.name} runs {article(runs.kind)}, which does not chat."
        raise OmniError("no_text_model", text, "Choose one from the list.")
    return found


def lanes_of(conversation: Conversation) -> QuerySet[Lane]:
    """With what their heads show; `answers` counts every version."""
    found = conversation.lanes.select_related("deployment", "route__deployment")
    found = found.prefetch_related(
        "deployment__instances",
        "route__deployment__instances",
        "deployment__bindings",
        "route__deployment__bindings",
    )
    return found.annotate(answers=Count("messages"))


def sharing(lanes: Sequence[Lane]) -> Shared | None:
    """Which of these would slow each other down, and on which devices."""
    serving = {lane.name: lane.serving for lane in lanes}
    return shared(
        {
            name: frozenset(place for b in d.bindings.all() for place in b.devices)
            for name, d in serving.items()
            if d
        }
    )


@transaction.atomic
def lane_add(*, conversation: Conversation, target: Target) -> Lane:
    """At the right end. It has not heard the questions until now; they go along with its first."""
    require(conversation.owner, CHAT)
    # The row lock, so that two tabs cannot both take the last place.
    Conversation.objects.select_for_update().get(pk=conversation.pk)
    refuse_blind(conversation)
    position = conversation.lanes.count()
    if position >= MOST_LANES:
        raise OmniError(
            "too_many_lanes",
            f"A conversation has at most {MOST_LANES} lanes.",
            "Remove one first.",
        )
    _refuse_twice(conversation, target)
    return Lane.objects.create(
        conversation=conversation, position=position, **_leads_to(target)
    )


@transaction.atomic
def lane_change(*, lane: Lane, target: Target) -> None:
    """From the next question on; the answers that are there keep the name of what gave them."""
    require(lane.conversation.owner, CHAT)
    Conversation.objects.select_for_update().get(pk=lane.conversation_id)
    refuse_blind(lane.conversation)
    _refuse_twice(lane.conversation, target, besides=lane)
    Lane.objects.filter(pk=lane.pk).update(**_leads_to(target))


@transaction.atomic
def lane_remove(*, lane: Lane) -> list[int]:
    """Deletes the lane and its answers; returns the ids of those that are still being written."""
    require(lane.conversation.owner, CHAT)
    Conversation.objects.select_for_update().get(pk=lane.conversation_id)
    refuse_blind(lane.conversation)
    others = list(
        Lane.objects.filter(conversation=lane.conversation_id)
        .exclude(pk=lane.pk)
        .order_by("position")
    )
    if not others:
        raise OmniError(
            "last_lane",
            "A conversation needs a lane.",
            "Change its deployment, or delete the chat.",
        )
    streaming = list(
        lane.messages.filter(state=Message.State.STREAMING).values_list("pk", flat=True)
    )
    lane.delete()
    # One by one from the left, so that no two ever have the same position.
    for position, other in enumerate(others):
        Lane.objects.filter(pk=other.pk).update(position=position)
    return streaming


def refuse_blind(conversation: Conversation) -> None:
    """What changes a lane would tell on which side it is."""
    if conversation.is_blind:
        raise OmniError(
            "is_blind",
            "Lanes are not changed in blind mode.",
            "Switch blind mode off first.",
        )


def _leads_to(target: Target) -> dict[str, Target | str | None]:
    is_route = isinstance(target, Route)
    return {
        "deployment": None if is_route else target,
        "route": target if is_route else None,
        "deployment_name": target.name,
    }


def _refuse_twice(
    conversation: Conversation, target: Target, besides: Lane | None = None
) -> None:
    field = "route" if isinstance(target, Route) else "deployment"
    others = conversation.lanes.filter(**{field: target})
    if besides:
        others = others.exclude(pk=besides.pk)
    if others.exists():
        raise OmniError(
            "lane_twice",
            f"{target.name} has a lane already.",
            "Choose another deployment.",
        )
