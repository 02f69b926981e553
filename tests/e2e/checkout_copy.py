"""A second checkout, as a stranger's clone would be, with what can't be fetched here put in place.

A test run has no way out of its network, so two things that scripts/up makes from packages are taken from
this checkout: the guest image, by copying it, and the virtual environment, whose site directory points
at this one's. Both carry the stamps by which scripts/up knows them; all else is as in a fresh clone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from stack_run import CHECKOUT

from terrace.stack import commands

SCRIPT_S = 120.0
_STAMP = '. "$checkout/scripts/lib/setup.sh" && environment_stamp requirements/build.lock requirements/runtime.lock'


class CheckoutCopy:
    """Its scripts, with settings of its own."""

    def __init__(self, root: Path, image: Path, environ: dict[str, str]) -> None:
        self.root = root
        self.var = root / "var"
        self._environ = environ
        _copy_sources(root)
        _make_environment(root)
        self._image = image

    def script(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run one of scripts/, whatever becomes of it."""
        if words[0] == "up":
            self._put_image()
        return subprocess.run(
            [f"scripts/{words[0]}", *words[1:]],
            cwd=self.root,
            env=commands.member_environment(**{**self._environ, **settings}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCRIPT_S,
            check=False,
        )

    def must(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        done = self.script(*words, **settings)
        assert done.returncode == 0, done.stderr + done.stdout
        return done

    def _put_image(self) -> None:
        (self.var / "images").mkdir(parents=True, exist_ok=True)
        for path in self._image.parent.glob(f"{self._image.name}*"):
            shutil.copy(path, self.var / "images")


def _copy_sources(root: Path) -> None:
    """Everything that a commit of this checkout would hold now."""
    git = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", str(CHECKOUT)]
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = CHECKOUT / name, root / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _make_environment(root: Path) -> None:
    environment = root / ".venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", environment], check=True)
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site,) = environment.glob("lib/python3*/site-packages")
    (site / "borrowed.pth").write_text("\n".join([str(root), *borrowed, ""]))
    stamp = subprocess.run(
        ["bash", "-c", _STAMP], env={"checkout": str(root), "PATH": commands.PATH}, capture_output=True, check=True
    )
    (environment / ".stamp-runtime").write_bytes(stamp.stdout)
