"""The `autostart` command. Each command's module is loaded only when it is called: `status` has to be fast.

Exit codes: 0 done, 1 it did not work, 2 broken configuration or usage, 3 autostart is not running.
"""

from autostart.cli.main import main

__all__ = ["main"]
