"""The root of the tree of errors. Imports nothing of ours."""


class AutostartError(Exception):
    """Any failure that autostart itself tells of."""
