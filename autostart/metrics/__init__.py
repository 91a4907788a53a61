"""Every metric of the program. Listens to lifecycle and proxy; imported by app and admin only."""

from autostart.metrics.catalogue import METRICS, reference
from autostart.metrics.counting import Metrics
from autostart.metrics.exposition import CONTENT_TYPE

__all__ = ["CONTENT_TYPE", "METRICS", "Metrics", "reference"]
