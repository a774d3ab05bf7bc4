"""`manage.py advise FILE`: rig plans for the purposes of a file, the best first."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import CommandError

from deployments.management.base import OmniCommand, add_json, read_rig
from deployments.rig.advised import applied
from deployments.rig.purposes_file import parse_purposes
from deployments.services.advice_documents import advice_document, room_text
from deployments.services.advising import Advice, advise
from deployments.services.discovery import local_host
from deployments.services.hub_candidates import HubCandidate
from deployments.services.rig_answers import Answer, Served
from omni.units import bytes_text, tps_text


class Command(OmniCommand):
    help = (
        "Which deployments serve the purposes of a file best on this rig, or on one that is not"
        " there; nothing is changed without --apply."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file", metavar="FILE", help="a purposes file, or - for stdin"
        )
        parser.add_argument(
            "--apply", type=int, metavar="RANK", help="deploy the answer of this rank"
        )
        parser.add_argument(
            "--start", action="store_true", help="with --apply: start what it deploys"
        )
        add_json(parser)

    def run(self, **options: Any) -> None:
        if options["start"] and options["apply"] is None:
            raise CommandError("--start goes with --apply RANK.", returncode=2)
        advice = advise(parse_purposes(read_rig(options["file"])), local_host())
        changes: list[str] = []
        if options["apply"] is not None:
            changes = applied(advice, options["apply"], start=options["start"])
        if options["json"]:
            return self.say_json({**advice_document(advice), "changes": changes})
        for rank, answer in enumerate(advice.answers, 1):
            self._show(rank, answer, advice)
        self.say(
            f"{advice.n_planned} layouts were planned in {advice.plan_s:.1f} s and searched in"
            f" {advice.search_s:.2f} s; {advice.n_rejected} of them cannot serve."
        )
        for purpose, some in advice.at_hub.items():
            for each in some:
                self.say(f"{purpose}: not downloaded: {_at_hub(each)}")
        for change in changes:
            self.say(change)

    def _show(self, rank: int, answer: Answer, advice: Advice) -> None:
        mark = " (what if)" if advice.is_what_if else ""
        self.say(f"{rank}. {answer.title}{mark}")
        for each in answer.served:
            plan = each.planned.plan if each.planned else None
            if plan is None:
                self.say(f"   {each.purpose.name}: not served")
                continue
            speed = plan.predicted
            self.say(
                f"   {each.purpose.name}: answer {tps_text(speed.decode_tps)}, prompt"
                f" {tps_text(speed.prefill_tps)}{_busy(each)}"
            )
        self.say(f"   memory: {', '.join(room_text(answer, advice.devices)) or 'none'}")
        for reason in answer.reasons:
            if reason.code != "served":
                self.say(f"   {reason.severity}: {reason.text}")


def _at_hub(each: HubCandidate) -> str:
    speed = f", at most {tps_text(each.most_tps)}" if each.most_tps else ""
    size = bytes_text(each.model.size_bytes)
    return f"{each.model.name}, {size}, should fit {' and '.join(each.places)}{speed}"


def _busy(each: Served) -> str:
    if each.seconds is None:
        return ""
    return f", a request in {each.seconds:.3g} s while all are busy"
