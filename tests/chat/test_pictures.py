"""What an image file is, by its bytes alone."""

from __future__ import annotations

import pytest

from chat import pictures, services
from chat.pictures import Picture, picture_of
from deployments.gateway.asgi import LARGEST_BODY_BYTES
from deployments.gateway.media import LARGEST_IMAGE_BYTES, MOST_IMAGES
from omni import settings
from omni.errors import OmniError
from tests.chat.pictures import HTML, SVG, ZIP, gif, huge_png, jpeg, webp
from tests.vision_models import png


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(32, 24), "png"),
        (jpeg(), "jpeg"),
        (gif(), "gif"),
        (webp("VP8 "), "webp"),
        (webp("VP8L"), "webp"),
        (webp("VP8X"), "webp"),
        # What follows its end is nobody's business.
        (png(32, 24) + b"more", "png"),
        (jpeg() + b"more", "jpeg"),
    ],
)
def test_a_picture_is_told_with_its_size(data: bytes, kind: str) -> None:
    assert picture_of(data) == Picture(kind, 32, 24)


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"", "empty_image", "empty"),
        (b"\0", "no_image", "PNG, JPEG, WebP, GIF"),
        (HTML, "no_image", "PNG, JPEG, WebP, GIF"),
        (SVG, "no_image", "PNG, JPEG, WebP, GIF"),
        (ZIP, "no_image", "PNG, JPEG, WebP, GIF"),
        (b" " + png(), "no_image", "PNG, JPEG, WebP, GIF"),
        (png()[:-1], "broken_image", "PNG file is cut off"),
        (png(0, 5), "broken_image", "PNG file is cut off"),
        (gif()[:-1], "broken_image", "GIF file is cut off"),
        (webp("VP8 ")[:-1], "broken_image", "WebP file is cut off"),
        (webp("VP8X").replace(b"VP8X", b"VP9X"), "broken_image", "cut off or broken"),
        (huge_png(), "too_many_pixels", "60000 × 60000 pixels; one may have 50 mega"),
        (png() + bytes(5 << 20), "image_too_large", "one may have 5 MiB"),
    ],
)
def test_what_is_none_is_refused_by_name(data: bytes, code: str, says: str) -> None:
    with pytest.raises(OmniError) as refused:
        picture_of(data)
    assert refused.value.code == code and says in str(refused.value)


@pytest.mark.parametrize("whole", [png(), jpeg(), gif(), webp("VP8 "), webp("VP8L")])
def test_a_picture_cut_anywhere_is_refused(whole: bytes) -> None:
    for end in range(len(whole)):
        with pytest.raises(OmniError):
            picture_of(whole[:end])


def test_a_marker_that_points_nowhere_ends() -> None:
    with pytest.raises(OmniError):
        picture_of(b"\xff\xd8\xff" + b"\xff" * 1000 + b"\xff\xd9")
    with pytest.raises(OmniError):
        picture_of(b"\xff\xd8" + b"\xff\xfe\0\0" * 1000 + b"\xff\xd9")


def test_limits_fit_into_those_of_the_panel_and_of_a_request() -> None:
    one, together = pictures.LARGEST_IMAGE_BYTES, pictures.LARGEST_TOGETHER_BYTES
    assert one < settings.LARGEST_BODY_BYTES
    assert pictures.MOST_IMAGES * one <= together and pictures.MOST_IMAGES < MOST_IMAGES
    assert one * 4 / 3 + 100 < LARGEST_IMAGE_BYTES
    # Text in JSON takes up to six bytes a character; as much again is for the answers before.
    text = 2 * services.LONGEST_QUESTION * 6
    assert together * 4 / 3 + text < LARGEST_BODY_BYTES
