"""Images of a conversation: kept as they come, joined to the question that is sent with them.

The only writers of their rows.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from hashlib import sha256

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from chat.models import Attachment, Conversation, Message
from chat.pictures import (
    CONTENT_TYPES,
    LARGEST_TOGETHER_BYTES,
    MOST_IMAGES,
    picture_of,
)
from deployments.gateway.media import MOST_IMAGES as MOST_TOGETHER
from omni.errors import OmniError
from omni.roles.rights import CHAT, require
from omni.units import bytes_text

# What was attached and never sent, by whichever tab: the oldest go first.
MOST_WAITING = 4 * MOST_IMAGES
WAITS_AT_MOST = timedelta(days=7)


@transaction.atomic
def attachment_add(*, conversation: Conversation, data: bytes) -> Attachment:
    """Keeps an image until it is sent with a question. Raises OmniError for what is none."""
    require(conversation.owner, CHAT)
    picture = picture_of(data)
    waiting = conversation.attachments.filter(messages=None)
    waiting.filter(created_at__lt=timezone.now() - WAITS_AT_MOST).delete()
    newest = waiting.order_by("-pk").values_list("pk", flat=True)[: MOST_WAITING - 1]
    waiting.exclude(pk__in=list(newest)).delete()
    return Attachment.objects.create(
        conversation=conversation,
        kind=picture.kind,
        width=picture.width,
        height=picture.height,
        size_bytes=len(data),
        sha256=sha256(data).hexdigest(),
        data=data,
    )


def attachment_remove(*, conversation: Conversation, attachment_id: int) -> None:
    """One that was not sent; what was sent goes with its conversation."""
    require(conversation.owner, CHAT)
    conversation.attachments.filter(pk=attachment_id, messages=None).delete()


def attachments_named(
    conversation: Conversation, ids: Sequence[int]
) -> list[Attachment]:
    """Those that a question is to be sent with, in the order of their coming."""
    wanted = set(ids)
    if len(wanted) > MOST_IMAGES:
        text = f"The message has {len(wanted)} images; one may have {MOST_IMAGES}."
        raise OmniError("too_many_images", text, "Send the others with the next.")
    if not wanted:
        return []
    found = list(conversation.attachments.filter(pk__in=wanted))
    if len(found) < len(wanted):
        raise OmniError(
            "image_gone", "An image is no longer there.", "Attach it again."
        )
    return found


def refuse_too_much(before: Iterable[Message], new: Sequence[Attachment]) -> None:
    """All images of a conversation go along with each question: what would be refused then is
    refused now."""
    if not new:
        return
    earlier = Attachment.objects.filter(messages__in=list(before))
    sizes = [*earlier.values_list("size_bytes", flat=True)]
    sizes += [each.size_bytes for each in new]
    fix = "Begin a new chat for more images."
    if len(sizes) > MOST_TOGETHER:
        text = f"This chat would have {len(sizes)} images; it may have {MOST_TOGETHER}."
        raise OmniError("too_many_images", text, fix)
    if sum(sizes) > LARGEST_TOGETHER_BYTES:
        text = (
            f"The images of this chat would have {bytes_text(sum(sizes))} together; they may have"
            f" {bytes_text(LARGEST_TOGETHER_BYTES)}, as all go along with each question."
        )
        raise OmniError("images_too_large", text, fix)


def images_of(questions: Sequence[Message]) -> Mapping[int, list[str]]:
    """Question → its images as `data:` addresses: the one place where a request has them read."""
    found = Attachment.objects.filter(messages__in=questions).order_by("pk")
    rows = found.values_list(F("messages"), "kind", "data")
    images: dict[int, list[str]] = {}
    for question, kind, data in rows:
        encoded = b64encode(data).decode()
        address = f"data:{CONTENT_TYPES[kind]};base64,{encoded}"
        images.setdefault(question, []).append(address)
    return images
