"""What is remembered of conversations: who answered, no more than so many."""

from __future__ import annotations

from deployments.gateway.auto.prompt import Prompt
from deployments.gateway.conversations import Conversations

GOES_ON = Prompt("more", goes_on=True, conversation="talk", prefix="system")


def test_only_what_goes_on_is_looked_up() -> None:
    known = Conversations()
    known.remember(Prompt("first", conversation="talk"), "smol")
    assert known.around(Prompt("first", conversation="talk"), {}).conversation == ""
    assert known.around(GOES_ON, {}).conversation == "smol"


def test_who_read_a_system_prompt_last_is_known_for_all_conversations() -> None:
    known = Conversations()
    known.remember(GOES_ON, "smol")
    other = Prompt("hello", conversation="another", prefix="system")
    around = known.around(other, {"smol": 2})
    assert (around.conversation, around.prefix) == ("", "smol")
    assert around.at_work == {"smol": 2}


def test_a_text_without_a_conversation_is_not_remembered() -> None:
    known = Conversations()
    known.remember(Prompt("once"), "smol")
    assert len(known) == 0


def test_the_oldest_are_forgotten() -> None:
    known = Conversations(most=3)
    for number in range(10):
        known.remember(Prompt("", goes_on=True, conversation=str(number)), f"d{number}")
    assert len(known) == 3
    newest = known.around(Prompt("", goes_on=True, conversation="9"), {})
    oldest = known.around(Prompt("", goes_on=True, conversation="0"), {})
    assert (newest.conversation, oldest.conversation) == ("d9", "")
