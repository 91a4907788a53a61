"""Which version of autostart this is. Imports nothing of ours."""

import functools


@functools.cache
def version() -> str:
    """Return the installed version; `0+unknown` for a checkout that is not installed."""
    from importlib import metadata  # noqa: PLC0415 - 30 ms, which most commands need not spend

    try:
        return metadata.version("autostart")
    except metadata.PackageNotFoundError:
        return "0+unknown"
