"""The gateway: from a request's first line to the last byte of its answer."""

from autostart.proxy.handler import Proxy, Route

__all__ = ["Proxy", "Route"]
