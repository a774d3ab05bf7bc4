"""English-like text, as much as is asked for, the same for a seed and never the same for two.

Sentences, not random words: on those, engines that draft would be misjudged.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from random import Random

from deployments.bench.prompts import Prompt

PEOPLE = (
    "the captain", "a fisherman", "the old doctor", "her younger brother", "the widow",
    "a clerk of the harbour", "the lighthouse keeper", "my uncle", "a stranger", "the teacher",
    "the miller's daughter", "a sailor from the north", "the judge", "our neighbour", "the smith",
)  # fmt: skip
DEEDS = (
    "walked slowly along", "had never forgotten", "looked for a long while at", "wrote about",
    "turned away from", "came back to", "asked everybody about", "drew a careful map of",
    "could not find", "sold half of", "kept watch over", "told a story about", "left behind",
    "dreamt again of", "counted the stones of",
)  # fmt: skip
THINGS = (
    "the narrow street", "a small red house", "the broken bridge", "the winter garden",
    "an empty church", "the road to the mill", "the last ship of the season", "a chest of letters",
    "the orchard behind the wall", "a field of barley", "the library", "the frozen river",
    "the market square", "a clock without hands", "the island",
)  # fmt: skip
WHENS = (
    "In the morning", "Late in the autumn", "When the bells had rung", "After the long rain",
    "On the third day", "Before anybody was awake", "That same evening", "Many years later",
    "As the tide went out", "At the end of the war", "Towards midnight", "One Sunday in March",
)  # fmt: skip
ENDS = (
    "and nobody spoke of it again", "for the wind had turned", "though the lamps were still lit",
    "because there was nothing else to do", "while the children slept", "as if it were a feast",
    "and the gate stayed open", "but the letter had already been sent", "without a word of thanks",
    "until the snow began to fall", "and that was the end of the matter", "in spite of the cold",
)  # fmt: skip
SENTENCES_A_PARAGRAPH = 6
LAST = SENTENCES_A_PARAGRAPH - 1


def sentences(seed: str) -> Iterator[str]:
    """Without end; the first words of two seeds differ in all likelihood, and soon for certain."""
    random = Random(seed)
    while True:
        choose = random.choice
        yield (
            f"{choose(WHENS)}, {choose(PEOPLE)} {choose(DEEDS)} {choose(THINGS)},"
            f" {choose(ENDS)}."
        )


def text_of(seed: str, words: int) -> str:
    """Whole sentences, in paragraphs, of at least so many words."""
    parts: list[str] = []
    written = 0
    for number, sentence in enumerate(sentences(seed)):
        if written >= words:
            break
        parts.append(sentence)
        parts.append("\n\n" if number % SENTENCES_A_PARAGRAPH == LAST else " ")
        written += len(sentence.split())
    return "".join(parts).strip()


def made_prompts(words: int, max_tokens: int, seed: int) -> Iterator[Prompt]:
    """Prompts without end, none of which begins as another does."""
    for number in count(1):
        text = text_of(f"{seed}/{number}", words)
        content = f"{seed}-{number}. Go on with this story:\n\n{text}"
        yield Prompt(
            f"made/{number}", ({"role": "user", "content": content},), max_tokens
        )
