"""`python -m autostart`: the same as the `autostart` command."""

import sys

from autostart.cli import main

sys.exit(main())
