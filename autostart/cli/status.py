"""`autostart status` and `autostart explain`: what the services do, and why."""

import argparse
import json
import sys
from typing import Any

from autostart.admin.client import ask, service_path
from autostart.cli.table import print_table
from autostart.cli.where import admin_socket
from autostart.words import age, printable

_HEAD = ("NAME", "STATE", "SINCE", "IN-USE", "LAST-USED", "SLEEPS-IN", "WOKEN-BY")


def status(args: argparse.Namespace) -> int:
    """Print a table of all services, or of one; or the API's JSON."""
    socket_path = admin_socket(args.config, args.socket)
    if args.service:
        answer = ask(socket_path, "GET", service_path(args.service))
        services = [answer]
    else:
        answer = ask(socket_path, "GET", "/v1/services")
        services = answer["services"]
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    if not services:
        print("no services are configured")
        return 0
    print_table(_HEAD, (_row(service, answer["now_s"]) for service in services))
    for service in services:
        if service["state"] == "failed" and (failure := service["failure"]):
            told = f"{service['service']}: {failure['message']}"
            print(f"\n{printable(told)} (see `autostart explain {service['service']}`)")
    return 0


def explain(args: argparse.Namespace) -> int:
    """Print the sentences about one service."""
    answer = ask(admin_socket(args.config, args.socket), "GET", service_path(args.service, "explain"))
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    title = answer["service"]
    if answer["name"] != title:
        title += f" ({answer['name']})"
    sys.stdout.write(f"{printable(title)}: {answer['state']}\n")
    for sentence in answer["explanation"]:
        print(f"  {printable(sentence)}")
    return 0


def _row(service: dict[str, Any], now_s: float) -> tuple[str, ...]:
    runs = service["state"] in {"ready", "starting", "stopping"}
    return (
        service["service"],
        service["state"],
        age(max(0.0, now_s - service["since_s"])),
        _in_use(service),
        "-" if service["last_used_s"] is None else f"{age(max(0.0, now_s - service['last_used_s']))} ago",
        _sleeps_in(service, now_s),
        (service["started_by"] if runs else None) or "-",
    )


def _in_use(service: dict[str, Any]) -> str:
    told = [str(service["in_flight"])] if service["in_flight"] else []
    if service["waiting"]:
        told.append(f"{service['waiting']} waiting")
    if service["is_outdated"]:
        told.append("new configuration waits")
    return " + ".join(told) or "-"


def _sleeps_in(service: dict[str, Any], now_s: float) -> str:
    if service["state"] != "ready":
        return "-"
    if service["in_flight"] or service["waiting"]:
        return "in use"
    if service["idle_stop_at_s"] is None:
        return "never"
    held = " (held)" if service["held_for_s"] > 0 else ""
    return age(max(0.0, service["idle_stop_at_s"] - now_s)) + held
