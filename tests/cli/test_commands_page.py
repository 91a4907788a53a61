"""docs/commands.md knows every command, option, request and error code."""

import argparse
from pathlib import Path

from stand import Stand

from autostart.admin import replies
from autostart.cli.main import parser
from autostart.proxy.replies import Row

PAGE = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()


def commands():
    found = parser()
    (subparsers,) = (a for a in found._actions if isinstance(a, argparse._SubParsersAction))
    return found, subparsers.choices


def test_every_command_is_on_the_page():
    _, found = commands()
    assert [name for name in found if f"`autostart {name}" not in PAGE] == []


def test_every_option_is_on_the_page():
    found, subcommands = commands()
    options = {
        option
        for each in (found, *subcommands.values())
        for action in each._actions
        for option in action.option_strings
        if option not in {"-h", "--help"}
    }
    assert sorted(option for option in options if f"`{option}" not in PAGE) == []


def test_every_request_of_the_local_api_is_on_the_page(tmp_path):
    routes = {
        f"| `{route.method} {route.resource.canonical}` |"
        for route in Stand(tmp_path, {}).admin._api().router.routes()
        if route.method != "HEAD"
    }
    assert len(routes) == 9
    assert sorted(route for route in routes if route not in PAGE) == []


def test_every_error_code_of_the_local_api_is_on_the_page():
    rows = [value for value in vars(replies).values() if isinstance(value, Row)]
    assert len(rows) == 6
    assert [row for row in rows if f"| {row.status} | `{row.code}` |" not in PAGE] == []
