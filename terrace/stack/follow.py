"""Watching members become ready."""

import time

from terrace.stack import log_files
from terrace.stack.control import Control, MemberStatus
from terrace.stack.errors import StackError
from terrace.stack.layout import Layout
from terrace.stack.member import Member
from terrace.stack.progress import Progress

START_S = 150.0
# a member that worked before and now ends this often during one start won't recover by itself
ENDINGS = 5
PAUSE_S = 0.05


def apply_and_follow(layout: Layout, control: Control, members: list[Member], progress: Progress) -> None:
    """Starts members and tells who becomes ready, until all are.

    Raises StackError for the first that does not, with what it wrote to its log meanwhile.
    """
    started, logged = time.time(), log_files.sizes(layout.log)
    first = control.apply(members)
    told = {one.name for one in first if one.is_well and one.since < started}
    if told:
        progress.say(f"already running: {', '.join(sorted(told))}")
    restarts = {one.name: one.restarts for one in first}
    while True:
        now = control.status()
        for one in now:
            if one.is_well and one.name not in told:
                progress.say(f"{one.name} {one.state}")
                told.add(one.name)
            if _is_hopeless(one, time.time() - started, restarts[one.name]):
                log = layout.log_of(one.name)
                tail = log_files.tail(log, after=logged.get(one.name, 0))
                raise StackError(f"{one.name} {one.reason or f'is still {one.state}'}. The end of {log}:", tail)
        if all(one.is_well for one in now):
            return
        time.sleep(PAUSE_S)


def _is_hopeless(member: MemberStatus, for_s: float, restarts_before: int) -> bool:
    late = for_s > START_S and not member.is_well and member.state != "waiting"
    return member.state == "failed" or late or member.restarts - restarts_before >= ENDINGS
