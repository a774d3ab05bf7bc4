"""Images through the gateway to a real engine with a projector, and to a deployment that takes
none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from deployments.gateway.media import LARGEST_IMAGE_BYTES, MOST_IMAGES
from tests.gateway.engine import RealEngine
from tests.gateway.fake_engine import FakeEngine
from tests.gateway.served import Served, question
from tests.vision_models import Eye, data_url, png, shown, write_projector

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

GIVE_EYES = """
from pathlib import Path
from deployments.library.reading import describe_file
from deployments.models import Binding, Deployment, Model
path = Path({path!r})
model = describe_file(Model(name="mmproj", path=str(path)), path)
model.save()
owner = Deployment.objects.get(name="seer")
Binding.objects.create(deployment=owner, role="projector", model=model, devices=[])
"""
EYE = Eye(n_embd=64, image_size=56)


@pytest.fixture(scope="module")
def seer(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealEngine]:
    """The real engine behind `seer`, which has a projector, and a fake one behind `texts`."""
    folder = tmp_path_factory.mktemp("engine")
    path = write_projector(folder / "mmproj.gguf", EYE)
    flags = ("-c", "2048", "-np", "2", "--device", "none", "--mmproj", str(path))
    real = RealEngine(folder, served.home.secret_path("engine"), flags=flags)
    real.wait_ready()
    fake = FakeEngine()
    served.prepare({"seer": real.port, "texts": fake.port}, {"eyes": "seer"})
    served.shell(GIVE_EYES.format(path=str(path)))
    served.start()
    yield real
    fake.close()
    real.kill()


def chat(model: str = "seer", **fields: Any) -> dict[str, Any]:
    body = {"messages": shown(), "temperature": 0, "max_tokens": 4}
    return {"model": model, **body, **fields}


@pytest.mark.parametrize("name", ["seer", "eyes", "auto"])
def test_an_image_is_answered_by_what_sees(
    served: Served, seer: RealEngine, name: str
) -> None:
    answer = served.post(chat(name))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-omni-deployment"] == "seer"
    told = answer.json()
    plain = served.post(chat("seer", messages=question("What is it?")["messages"]))
    more = told["usage"]["prompt_tokens"] - plain.json()["usage"]["prompt_tokens"]
    # A line feed may stand before the image.
    assert EYE.tokens <= more <= EYE.tokens + 2
    # The engine itself gives the same answer: the image came through unharmed.
    direct = httpx.post(
        f"http://127.0.0.1:{seer.port}/v1/chat/completions",
        json=chat(),
        headers={"authorization": f"Bearer {seer.key}"},
        timeout=60,
    )
    assert direct.json()["choices"] == told["choices"]


def test_an_image_is_answered_as_a_stream(served: Served, seer: RealEngine) -> None:
    answer = served.post(chat(stream=True))
    assert answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n")


def test_what_takes_no_images_says_so_and_names_what_does(
    served: Served, seer: RealEngine
) -> None:
    answer = served.post(chat("texts"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "no_vision")
    assert error["type"] == "invalid_request_error"
    assert error["message"] == "Deployment 'texts' takes no images. These do: seer."


def test_sound_is_not_taken_by_what_only_sees(served: Served, seer: RealEngine) -> None:
    sound = {
        "type": "input_audio",
        "input_audio": {"data": "UklGRg==", "format": "wav"},
    }
    messages = [{"role": "user", "content": [sound]}]
    answer = served.post(chat(messages=messages))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "no_audio")
    assert "No other that can be asked for does" in error["message"]


def test_limits_are_said_with_their_number(served: Served, seer: RealEngine) -> None:
    answer = served.post(chat(messages=shown(pictures=MOST_IMAGES + 1)))
    assert answer.status_code == 400
    assert f"{MOST_IMAGES + 1} images; it may have {MOST_IMAGES}" in answer.text
    large = data_url(b"x" * LARGEST_IMAGE_BYTES)
    part = {"type": "image_url", "image_url": {"url": large}}
    answer = served.post(chat(messages=[{"role": "user", "content": [part]}]))
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400 and "16 MiB in base64" in message, message


def test_what_is_no_picture_is_refused_by_the_engine_and_nothing_ends(
    served: Served, seer: RealEngine
) -> None:
    for picture in (b"", b"no picture", png()[:40]):
        part = {"type": "image_url", "image_url": {"url": data_url(picture)}}
        answer = served.post(chat(messages=[{"role": "user", "content": [part]}]))
        assert answer.status_code == 400, (picture, answer.text)
        assert json.loads(answer.text)["error"]["message"]
    assert served.post(chat()).status_code == 200
