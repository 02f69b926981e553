"""The supervisor: one process that starts, restarts and stops the members of a stack.

Run as `python -m terrace.stack.supervisor VAR`. It takes orders on the stack's control socket, one JSON
object per connection and line, and answers with one line.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from terrace.stack import log_files, process_record
from terrace.stack.layout import Layout
from terrace.stack.member import Member, State, from_json
from terrace.stack.reaper import Reaper
from terrace.stack.runner import Runner

LONGEST_ORDER_BYTES = 4 * 1024 * 1024
ROTATE_EVERY_S = 30.0


class Refused(Exception):
    """An order that can't be carried out, in one sentence."""


class Supervisor:
    """Members by name, and the orders that change them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._reaper = Reaper()
        self._runners: dict[str, Runner] = {}
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then stops all members."""
        self._reaper.install()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        path = self._layout.control_socket
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, path, limit=LONGEST_ORDER_BYTES)
        path.chmod(0o600)
        process_record.write(self._layout.pids, "supervisor", os.getpid())
        rotation = asyncio.create_task(log_files.keep_small(self._layout.log, ROTATE_EVERY_S))
        await self._ended.wait()
        rotation.cancel()
        await self._stop(self._runners)
        server.close()
        path.unlink(missing_ok=True)
        process_record.remove(self._layout.pids, "supervisor")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer: dict[str, Any]
        try:
            answer = {"ok": True, "members": await self._obey(json.loads(await reader.readline()))}
        except Refused as refusal:
            answer = {"ok": False, "error": str(refusal)}
        except (ValueError, KeyError) as error:
            answer = {"ok": False, "error": f"The order could not be read: {error!r}."}
        with contextlib.suppress(OSError):  # the asker may have gone away
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def _obey(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        match order["order"]:
            case "status":
                pass
            case "check":
                return await self._check()
            case "apply":
                await self._apply(from_json(order["members"]))
            case "start":
                self._start(order["names"])
            case "stop":
                await self._stop(order["names"])
            case "restart":
                await self._stop(order["names"])
                self._start(order["names"])
            case "kill":
                await self._kill(order["names"], int(order["signal"]))
            case unknown:
                raise Refused(f"There is no order {unknown!r}.")
        return [runner.describe() for runner in self._runners.values()]

    async def _check(self) -> list[dict[str, Any]]:
        """Like status, but asks each ready member again: `unready` when it doesn't answer now."""

        async def describe(runner: Runner) -> dict[str, Any]:
            answers = runner.state is not State.READY or await runner.answers()
            return runner.describe() | ({} if answers else {"state": "unready", "reason": "does not answer"})

        return list(await asyncio.gather(*map(describe, self._runners.values())))

    async def _apply(self, members: list[Member]) -> None:
        """Makes the stack consist of exactly these members; equal ones that run are left alone."""
        wanted = {member.name: member for member in members}
        gone = [name for name, runner in self._runners.items() if wanted.get(name) != runner.member]
        await self._stop(gone)
        kept = {name: runner for name, runner in self._runners.items() if name in wanted and name not in gone}
        self._runners = {name: kept.get(name) or self._runner(member) for name, member in wanted.items()}
        self._start(name for name, runner in self._runners.items() if not runner.state.is_well)

    def _runner(self, member: Member) -> Runner:
        return Runner(member, self._reaper, self._layout.log_of(member.name), self._layout.pids)

    def _find(self, name: str) -> Runner:
        if name not in self._runners:
            raise Refused(f"There is no member {name}; there are {', '.join(self._runners)}.")
        return self._runners[name]

    def _start(self, names: Iterable[str]) -> None:
        for runner in [self._find(name) for name in names]:
            runner.start(self._find(need) for need in runner.member.needs)

    async def _kill(self, names: Iterable[str], number: int) -> None:
        for runner in [self._find(name) for name in names]:
            if not await runner.kill(number):
                raise Refused(f"{runner.member.name} is not running.")

    async def _stop(self, names: Iterable[str]) -> None:
        """Stops members, each after those that need it, the others at the same time."""
        runners = {name: self._find(name) for name in names}
        tasks: dict[str, asyncio.Task[None]] = {}

        async def stop(runner: Runner) -> None:
            name = runner.member.name
            await asyncio.gather(*(tasks[other] for other in runners if name in runners[other].member.needs))
            await runner.stop()

        for name, runner in runners.items():
            tasks[name] = asyncio.create_task(stop(runner))
        await asyncio.gather(*tasks.values())


def main() -> None:
    asyncio.run(Supervisor(Layout(Path(sys.argv[1]))).run())


if __name__ == "__main__":
    main()
