"""What a request holds besides text, and the limits of that."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.formats.projectors import Medium
from deployments.gateway.media import LARGEST_IMAGE_BYTES, MOST_IMAGES, media_in
from deployments.gateway.shapes import FieldError

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
BARE = {"type": "image_url", "image_url": "data:image/png;base64,AA=="}
SOUND = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
SOURCE = {"type": "base64", "media_type": "image/png", "data": "AA=="}
BLOCK = {"type": "image", "source": SOURCE}
DOCUMENT = {"type": "document", "source": SOURCE}
SHOWN = {"type": "tool_result", "tool_use_id": "t", "content": [BLOCK]}
INPUT = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
TEXT = {"type": "text", "text": "image_url"}


def body(*contents: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": each} for each in contents]}


@pytest.mark.parametrize(
    ("asked", "media"),
    [
        (body("image_url"), set()),
        (body([TEXT]), set()),
        (body([TEXT, IMAGE]), {Medium.IMAGE}),
        (body([BARE]), {Medium.IMAGE}),
        (body([BLOCK]), {Medium.IMAGE}),
        (body([SHOWN]), {Medium.IMAGE}),
        (body([DOCUMENT]), set()),
        ({"input": [{"role": "user", "content": [INPUT]}]}, {Medium.IMAGE}),
        ({"input": "input_image"}, set()),
        (body("first", [SOUND]), {Medium.AUDIO}),
        (body([IMAGE], [SOUND]), {Medium.IMAGE, Medium.AUDIO}),
        (body([{"type": "image_url", "image_url": None}]), set()),
        (body(None, 5, [5, None, "image_url"]), set()),
        ({"messages": None}, set()),
        ({"messages": [None, 5]}, set()),
        ({"prompt": "image_url"}, set()),
        ({}, set()),
    ],
)
def test_what_is_in_a_request(asked: dict[str, Any], media: set[Medium]) -> None:
    assert media_in(asked) == media


def test_as_many_images_as_may_be_and_one_more() -> None:
    assert media_in(body([IMAGE] * MOST_IMAGES)) == {Medium.IMAGE}
    halves = [[IMAGE] * MOST_IMAGES, [IMAGE]]
    with pytest.raises(FieldError, match=rf"{MOST_IMAGES + 1} images; it may have"):
        media_in(body(*halves))


def test_as_large_an_image_as_may_be_and_a_byte_more() -> None:
    whole = {"type": "image_url", "image_url": {"url": "x" * LARGEST_IMAGE_BYTES}}
    assert media_in(body([whole])) == {Medium.IMAGE}
    more = {"type": "image_url", "image_url": {"url": "x" * (LARGEST_IMAGE_BYTES + 1)}}
    with pytest.raises(FieldError, match="16 MiB in base64") as caught:
        media_in(body("first", [more]))
    assert caught.value.param == "messages[1]"
