"""`python -m autostart.metrics > docs/metrics.md` writes the page about metrics."""

import sys

from autostart.metrics import reference

sys.stdout.write(reference())
