"""`autostart render`: files for other programs, made from the configuration."""

import argparse
import sys

from autostart.cli.where import BrokenConfig, config_path


def render(args: argparse.Namespace) -> int:
    """Print the file for nginx."""
    from autostart import nginx  # noqa: PLC0415 - the models take 0.2 s to load
    from autostart.config import load  # noqa: PLC0415
    from autostart.errors import ConfigError  # noqa: PLC0415

    path = config_path(args.config)
    try:
        config = load(path)
    except ConfigError as exc:
        raise BrokenConfig(path, "is broken; `autostart check` explains every mistake") from exc
    sys.stdout.write(
        nginx.render(
            config, certificates=args.certificates, http_port=args.http_port, https_port=args.https_port
        )
    )
    return 0
