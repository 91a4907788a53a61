"""Tell a full disk from other faults of files."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from speech_common.errors import StorageFull


@contextmanager
def storage_told() -> Iterator[None]:
    """Raise StorageFull within the context where there is no room for a file."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull from exc
        raise
