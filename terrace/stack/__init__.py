"""The whole platform on one machine: what scripts/up, scripts/down and scripts/stack do.

Only the standard library is imported at this level, so that a stack can be taken down
when its virtual environment is broken or gone.

From Python (tests, bench), in the network namespace the stack is to live in:

    settings = StackSettings.load(checkout, {"TERRACE_VAR": "/tmp/x/var", "TERRACE_PROFILE": "test"})
    endpoint = up(settings, Options(first_vm=False))
    Control(settings.layout.control_socket).kill("internal1")
    down(settings, purge=True)
"""

from terrace.stack.control import Control
from terrace.stack.errors import StackError
from terrace.stack.progress import Progress
from terrace.stack.settings import StackSettings
from terrace.stack.start import Endpoint, Options, up
from terrace.stack.stop import down

__all__ = ["Control", "Endpoint", "Options", "Progress", "StackError", "StackSettings", "down", "up"]
