"""What the supervisor promises of its members."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from small_members import SLEEP, eventually, python

from terrace.stack import process_record, stop
from terrace.stack.control import Control, MemberStatus
from terrace.stack.errors import StackError
from terrace.stack.follow import apply_and_follow
from terrace.stack.layout import Layout
from terrace.stack.member import Member, Probe
from terrace.stack.progress import Progress


def log_start(name: str, journal: Path, before: str = "") -> str:
    note = f"open({str(journal)!r}, 'a').write('{name}\\n')"
    return f"{before}\n{note}\nimport signal; signal.pause()"


def one(control: Control, name: str) -> MemberStatus:
    return next(member for member in control.status() if member.name == name)


def test_members_start_after_what_they_need(control: Control, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    slow = log_start("base", journal, "import time; time.sleep(0.3)")
    probe = Probe("command", ("test", "-s", str(journal)))
    control.apply(
        [
            python("top", log_start("top", journal), needs=("middle",)),
            python("middle", f"open({str(journal)!r}, 'a').write('middle\\n')", needs=("base",), once=True),
            python("base", slow, ready=(probe,)),
        ]
    )
    control.wait(timeout_s=10)
    eventually(lambda: journal.read_text().count("\n") == 3)
    assert journal.read_text().split() == ["base", "middle", "top"]
    assert {member.name: member.state for member in control.status()} == {
        "top": "ready",
        "middle": "done",
        "base": "ready",
    }


def test_independent_members_start_at_the_same_time(control: Control) -> None:
    started = time.monotonic()
    control.apply([python(f"m{i}", "import time; time.sleep(0.5)", once=True) for i in range(4)])
    control.wait(timeout_s=10)
    assert time.monotonic() - started < 1.8


def test_a_killed_member_comes_back(control: Control) -> None:
    control.apply([python("a", SLEEP)])
    control.wait(timeout_s=10)
    first = one(control, "a").pid
    control.kill("a")
    control.wait("a", timeout_s=10)
    again = one(control, "a")
    assert again.pid not in (None, first)
    assert again.restarts == 1


def test_a_member_killed_from_outside_comes_back(control: Control) -> None:
    control.apply([python("a", SLEEP)])
    control.wait(timeout_s=10)
    pid = one(control, "a").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: one(control, "a").restarts == 1 and one(control, "a").state == "ready")


def test_a_member_that_never_works_fails_and_tells_why(control: Control, layout: Layout) -> None:
    broken = python("broken", "raise SystemExit('the disk is on fire')", ready=(Probe("tcp", "127.0.0.1:9"),))
    layout.log_of("broken").write_text("of an earlier start\n")
    with pytest.raises(StackError, match="broken ended with status 1, 3 times before it was ready") as caught:
        apply_and_follow(layout, control, [broken, python("other", SLEEP)], Progress.silent())
    assert caught.value.details == "the disk is on fire\n" * 2 + "the disk is on fire"
    assert one(control, "other").state == "ready"


def test_a_command_that_fails_holds_back_what_needs_it(control: Control) -> None:
    control.apply([python("migrate", "raise SystemExit(3)", once=True), python("api", SLEEP, needs=("migrate",))])
    eventually(lambda: one(control, "migrate").state == "failed")
    assert one(control, "migrate").reason == "ended with status 3"
    assert one(control, "api").state == "waiting"


def test_a_program_that_is_not_there_fails(control: Control) -> None:
    control.apply([Member(name="a", command=("/nowhere/program",))])
    eventually(lambda: one(control, "a").state == "failed")
    assert "No such file or directory" in one(control, "a").reason


def test_a_member_that_is_not_ready_in_time_is_ended(control: Control) -> None:
    never = python("never", SLEEP, ready=(Probe("unix", "/nowhere/socket"),), start_timeout_s=0.2)
    control.apply([never])
    eventually(lambda: one(control, "never").state == "failed")
    assert "not ready within 0.2 s" in one(control, "never").reason


def test_stop_and_start(control: Control) -> None:
    control.apply([python("a", SLEEP)])
    control.wait(timeout_s=10)
    control.stop("a")
    assert one(control, "a").state == "stopped"
    assert one(control, "a").pid is None
    control.start("a")
    control.wait("a", timeout_s=10)


def test_a_deaf_member_is_killed_after_its_time(control: Control) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    control.apply([python("deaf", deaf, stop_timeout_s=0.3)])
    control.wait(timeout_s=10)
    control.stop("deaf")
    assert one(control, "deaf").state == "stopped"


def test_apply_restarts_only_what_changed(control: Control) -> None:
    members = [python(name, SLEEP) for name in ("a", "b", "gone")]
    control.apply(members)
    control.wait(timeout_s=10)
    before = {member.name: member.pid for member in control.status()}
    control.apply([members[0], replace(members[1], revision="2"), python("new", SLEEP)])
    control.wait(timeout_s=10)
    after = {member.name: member.pid for member in control.status()}
    assert after.keys() == {"a", "b", "new"}
    assert after["a"] == before["a"]
    assert after["b"] != before["b"]


def test_check_finds_a_member_that_stopped_answering(control: Control, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    sign.touch()
    control.apply([python("a", SLEEP, ready=(Probe("command", ("test", "-e", str(sign))),))])
    control.wait(timeout_s=10)
    sign.unlink()
    assert one(control, "a").state == "ready"
    assert [member.state for member in control.check()] == ["unready"]


def test_orphans_are_reaped_at_once(control: Control, tmp_path: Path) -> None:
    """As guests are: daemons of a member, in a session of their own, which end later."""
    pid_file = tmp_path / "pid"
    code = f"""
import os, signal
if not os.path.exists({str(pid_file)!r}) and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open({str(pid_file)!r}, 'w').write(str(os.getpid()))
        signal.pause()
    os._exit(0)
signal.pause()
"""
    control.apply([python("a", code, kills_group=False)])
    eventually(lambda: pid_file.exists() and pid_file.read_text() != "")
    orphan = int(pid_file.read_text())
    control.kill("a")
    control.wait("a", timeout_s=10)
    assert Path(f"/proc/{orphan}").exists(), "it must survive the end of the member"
    os.kill(orphan, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{orphan}").exists(), timeout_s=0.5)


def test_helpers_of_a_killed_member_end_with_it(control: Control, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = f"""
import signal, subprocess
helper = subprocess.Popen(['sleep', '600'])
open({str(pid_file)!r}, 'w').write(str(helper.pid))
signal.pause()
"""
    control.apply([python("a", code)])
    eventually(lambda: pid_file.exists() and pid_file.read_text() != "")
    helper = int(pid_file.read_text())
    control.kill("a")
    eventually(lambda: not Path(f"/proc/{helper}").exists())


def test_members_of_a_dead_supervisor_are_found_and_ended(control: Control, layout: Layout) -> None:
    control.apply([python("a", SLEEP), python("b", SLEEP)])
    control.wait(timeout_s=10)
    pids = [member.pid for member in control.status()]
    supervisor = process_record.living(layout.pids)["supervisor"]
    os.kill(supervisor.pid, signal.SIGKILL)
    eventually(lambda: not supervisor.is_alive())
    assert not control.is_running()
    stop.end_leftovers(layout)
    assert all(process_record.process_id(pid) is None for pid in pids if pid)
    assert process_record.living(layout.pids) == {}


def test_orders_that_make_no_sense_are_refused(control: Control) -> None:
    control.apply([python("a", SLEEP)])
    with pytest.raises(StackError, match="There is no member b; there are a"):
        control.restart("b")
    control.wait(timeout_s=10)
    control.stop("a")
    with pytest.raises(StackError, match="a is not running"):
        control.kill("a")


def test_without_a_supervisor_the_answer_says_what_to_do(layout: Layout) -> None:
    with pytest.raises(StackError, match="scripts/up starts it"):
        Control(layout.control_socket).status()
