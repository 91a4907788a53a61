"""When a service starts, who may use it, and when it stops. Knows neither aiohttp nor docker."""

from autostart.lifecycle.busy import OwnWork
from autostart.lifecycle.events import State
from autostart.lifecycle.service import Service
from autostart.lifecycle.snapshot import Snapshot
from autostart.lifecycle.use import Lease

__all__ = ["Lease", "OwnWork", "Service", "Snapshot", "State"]
