"""A conversation with its votes as a file: JSON for programs, Markdown for people.

What the page hides until the vote is not in the file either.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from chat.models import Attachment, Ballot, Message
from chat.pictures import CONTENT_TYPES
from chat.thread import Thread
from chat.turns import Entry, Row
from omni.units import bytes_text

FIGURES = (
    "ttft_ms",
    "duration_ms",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "prefill_tps",
    "decode_tps",
    "timings",
)


def as_document(thread: Thread) -> dict[str, Any]:
    conversation = thread.conversation
    return {
        "title": conversation.title,
        "begun_at": conversation.created_at.isoformat(),
        "system_prompt": conversation.system_prompt,
        "settings": conversation.settings,
        "blind": conversation.is_blind,
        "one_after_the_other": conversation.is_in_turn,
        "turns": [_turn(row) for row in thread.rows],
    }


def as_json(thread: Thread) -> str:
    return json.dumps(as_document(thread), indent=2, ensure_ascii=False) + "\n"


def as_markdown(thread: Thread) -> str:
    document = as_document(thread)
    lines = [f"# {document['title'] or 'Conversation'}", ""]
    lines += [f"Begun at {document['begun_at']}.", ""]
    if document["system_prompt"]:
        lines += ["## System prompt", "", document["system_prompt"], ""]
    for number, turn in enumerate(document["turns"], 1):
        lines += [f"## Question {number}", ""]
        lines += _with_blank(
            _image_text(*each) for each in enumerate(turn["images"], 1)
        )
        lines += _with_blank(filter(None, [turn["question"]]))
        for answer in turn["answers"]:
            lines += [f"### {_heading(answer)}", "", answer["text"], ""]
            lines += _remarks(answer)
        if turn["vote"]:
            lines += [f"**Vote:** {_vote_text(turn['vote'])}", ""]
    return "\n".join(lines)


# --- the document ---------------------------------------------------------------------------------
def _turn(row: Row) -> dict[str, Any]:
    return {
        "question": row.question.message.content,
        "images": [_image(each.attachment) for each in row.question.images],
        "asked_at": row.question.message.created_at.isoformat(),
        "hidden": row.is_hidden,
        "answers": [_answer(entry) for entry in row.entries],
        "vote": _vote(row.ballot) if row.ballot and row.ballot.verdict else None,
    }


def _image(attachment: Attachment) -> dict[str, Any]:
    """What it is, without its bytes."""
    return {
        "type": CONTENT_TYPES[attachment.kind],
        "width": attachment.width,
        "height": attachment.height,
        "size_bytes": attachment.size_bytes,
        "sha256": attachment.sha256,
    }


def _answer(entry: Entry) -> dict[str, Any]:
    message = entry.message
    shown = {
        "side": entry.side.lower() or None,
        "state": str(entry.state),
        "text": "" if entry.is_held else message.content,
    }
    if entry.is_hidden:
        return shown
    return {
        **shown,
        "deployment": message.deployment_name,
        "thinking": message.thinking,
        "error": message.error,
        "figures": {name: getattr(message, name) for name in FIGURES},
    }


def _vote(ballot: Ballot) -> dict[str, Any]:
    decided_at = ballot.decided_at.isoformat() if ballot.decided_at else None
    return {
        "verdict": ballot.verdict,
        "blind": ballot.is_blind,
        "counts": ballot.is_blind and ballot.is_vote,
        "left": ballot.left.name,
        "right": ballot.right.name,
        "preferred": ballot.preferred.name if ballot.preferred else None,
        "decided_at": decided_at,
    }


# --- as Markdown ----------------------------------------------------------------------------------
def _heading(answer: dict[str, Any]) -> str:
    name = answer.get("deployment", "")
    side = (answer["side"] or "").capitalize()
    return ": ".join(part for part in (side, name) if part)


def _remarks(answer: dict[str, Any]) -> list[str]:
    """What is to be said below an answer: how it ended, and its figures."""
    remarks = []
    if answer["state"] != Message.State.DONE:
        remarks.append(f"The answer is {answer['state']}. {answer.get('error', '')}")
    figures = answer.get("figures", {})
    known = [f"{n} {figures[n]:g}" for n in FIGURES[:-1] if figures.get(n) is not None]
    if known:
        remarks.append(", ".join(known))
    return _with_blank(f"*{remark.strip()}*" for remark in remarks)


def _with_blank(lines: Iterable[str]) -> list[str]:
    """A paragraph each."""
    return [part for line in lines for part in (line, "")]


def _image_text(number: int, image: dict[str, Any]) -> str:
    size = f"{image['width']} × {image['height']}, {bytes_text(image['size_bytes'])}"
    return f"*Image {number}: {image['type']}, {size}, sha256 {image['sha256']}*"


def _vote_text(vote: dict[str, Any]) -> str:
    verdict = Ballot.Verdict(vote["verdict"])
    chosen = f"{vote['preferred']} is better" if vote["preferred"] else verdict.label
    where = (
        f"left was {vote['left']}, right was {vote['right']}" if vote["blind"] else ""
    )
    counts = "" if vote["counts"] else "does not count in the standings"
    return "; ".join(part for part in (chosen, where, counts) if part)
