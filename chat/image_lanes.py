"""Which lanes of a conversation take images, said before one is sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chat.models import Conversation, Lane
from deployments.formats.projectors import Medium
from deployments.gateway.directory import taken_by
from deployments.models import Deployment
from omni.errors import OmniError


@dataclass(frozen=True)
class ImageLanes:
    """By name. A lane of which it is not known is neither said to take images nor to refuse
    them."""

    refusing: tuple[str, ...]
    count: int
    # Deployments that take images, in lanes or not.
    taking: tuple[str, ...]
    is_blind: bool = False

    @property
    def can_attach(self) -> bool:
        """Whether any lane may answer; of hidden lanes the one that refuses would be told apart by
        it."""
        if self.is_blind:
            return not self.refusing
        return len(self.refusing) < self.count

    @property
    def why_not(self) -> str:
        """Empty where images can be attached."""
        if self.can_attach:
            return ""
        if self.is_blind and len(self.refusing) < self.count:
            names = ", ".join(self.refusing)
            return f"A blind vote on images needs two lanes that take them; {names} takes none."
        lanes = (
            "No lane takes images" if self.count > 1 else "This lane takes no images"
        )
        if self.taking:
            return f"{lanes}. These deployments do: {', '.join(self.taking)}."
        return f"{lanes}, and no deployment does; give one a projector on its page."

    @property
    def warning(self) -> str:
        """What will happen in some of the lanes; empty where all may answer."""
        if not self.refusing or not self.can_attach:
            return ""
        takes = "takes" if len(self.refusing) == 1 else "take"
        return f"{', '.join(self.refusing)} {takes} no images and will answer with an error."


def image_lanes(conversation: Conversation, lanes: Iterable[Lane]) -> ImageLanes:
    """As it is now; a deployment may get a projector, or lose it, at any time."""
    deployments = Deployment.giving_text().select_related("engine")
    taken = taken_by(deployments)
    found = list(lanes)
    refusing = [lane.name for lane in found if not _may_take(lane, taken)]
    taking = [name for name, media in taken.items() if Medium.IMAGE in (media or ())]
    return ImageLanes(
        tuple(refusing), len(found), tuple(sorted(taking)), conversation.is_blind
    )


def may_take_images(lane: Lane) -> bool:
    """False only where it is known that what answers takes none."""
    return _may_take(lane, taken_by([lane.serving]) if lane.serving else {})


def _may_take(lane: Lane, taken: dict[str, frozenset[Medium] | None]) -> bool:
    """What a route with rules leads to is known once there is a question."""
    if lane.serving is None or (lane.route and lane.route.rules):
        return True
    media = taken.get(lane.serving.name)
    return media is None or Medium.IMAGE in media


def refuse_untaken(conversation: Conversation) -> None:
    """Raises OmniError where lanes are hidden and an error would tell which is which."""
    lanes = conversation.lanes.select_related("deployment", "route__deployment")
    found = image_lanes(conversation, lanes)
    if not found.can_attach:
        raise OmniError("no_vision", found.why_not, "Ask without the image.")
