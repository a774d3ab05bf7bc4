"""Who answered which conversation, so that it stays where its KV cache is. Kept in memory, by each
process for itself; the oldest are forgotten."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from deployments.gateway.auto.decision import Surroundings
from deployments.gateway.auto.prompt import Prompt

MOST_REMEMBERED = 4096


class Conversations:
    """Deployments by conversation, and by system prompt."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self.most = most
        self._answered: OrderedDict[str, str] = OrderedDict()

    def around(self, prompt: Prompt, at_work: Mapping[str, int]) -> Surroundings:
        """What a decision about this prompt may know besides it."""
        conversation = self._known(prompt.conversation) if prompt.goes_on else ""
        return Surroundings(at_work, conversation, self._known(_prefix_key(prompt)))

    def remember(self, prompt: Prompt, deployment: str) -> None:
        for key in filter(None, (prompt.conversation, _prefix_key(prompt))):
            self._answered[key] = deployment
            self._answered.move_to_end(key)
        while len(self._answered) > self.most:
            self._answered.popitem(last=False)

    def clear(self) -> None:
        self._answered.clear()

    def __len__(self) -> int:
        return len(self._answered)

    def _known(self, key: str) -> str:
        return self._answered.get(key, "") if key else ""


def _prefix_key(prompt: Prompt) -> str:
    return f"prefix {prompt.prefix}" if prompt.prefix else ""


conversations = Conversations()
