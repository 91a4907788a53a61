"""Whether the engine's events still come: what runs is listed now and then, and compared with what was told.

The engine sends nothing while nothing happens, so a stream whose other end has gone (a firewall that forgot it, an
engine that hangs) looks like a quiet one. Changed addresses are found too, of which no container event tells. Pure.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from autostart.runtime.compose.events import EngineEvent, is_one_off


@dataclass(frozen=True, slots=True)
class Listed:
    """A container that runs or is paused, as the engine lists it: by what it is followed, and what may change."""

    keys: tuple[str, ...]
    state: str
    addresses: tuple[str, ...]


def parse_list(raw: Iterable[dict[str, Any]]) -> dict[str, Listed]:
    """Return by id what the engine's list tells, which need not be all that exists."""
    return {
        item["Id"]: Listed(
            EngineEvent.of_labels(
                "listed", item["Id"], (item.get("Names") or [""])[0].lstrip("/"), item.get("Labels") or {}
            ).keys,
            item["State"],
            tuple(
                network["IPAddress"]
                for network in ((item.get("NetworkSettings") or {}).get("Networks") or {}).values()
                if network and network.get("IPAddress")
            ),
        )
        for item in raw
        if not is_one_off(item.get("Labels") or {})
    }


class Comparison:
    """What was listed last, and of which containers an event was told since."""

    def __init__(self) -> None:
        self._listed: dict[str, Listed] | None = None
        self._told: set[str] = set()
        self._unsure: set[str] = set()

    def reset(self) -> None:
        """Begin anew: the stream has, and everything is looked at anyway."""
        self._listed = None

    def tell(self, container_id: str) -> None:
        """Take note that an event of this container came."""
        self._told.add(container_id)

    def is_told(self, container_id: str) -> bool:
        """Say whether an event of it came since the last `compare` was handed its list."""
        return container_id in self._told

    def compare(self, listed: dict[str, Listed]) -> tuple[set[str], list[Listed]]:
        """Return the ids of those that begun, ended or froze untold, and those that may have moved to other addresses.

        Among these is what was not listed the time before: it may have moved since somebody looked at it. The first
        list of a stream only tells what the next one is compared with.
        """
        before, self._listed = self._listed, listed
        told, self._told = self._told, set()
        unsure, self._unsure = self._unsure, set()
        if before is None:
            return set(), []
        untold = set()
        for container_id in before.keys() | listed.keys() | told:
            is_same = _state(before, container_id) == _state(listed, container_id)
            if is_same and container_id in told:
                # Again what it was, or the list lags behind the event: the next one is only taken note of.
                self._unsure.add(container_id)
            elif not is_same and container_id not in told and container_id not in unsure:
                untold.add(container_id)
        moved = [
            now
            for container_id, now in listed.items()
            if container_id not in untold
            and ((was := before.get(container_id)) is None or was.addresses != now.addresses)
        ]
        return untold, moved


def _state(listed: dict[str, Listed], container_id: str) -> str:
    found = listed.get(container_id)
    return found.state if found is not None else ""
