"""How long starts are held off after failures, so that a broken service is not hammered (promise 5)."""

from collections.abc import Callable

from autostart.errors import RuntimeFailure


class HoldOff:
    """The failures of one service in a row, and when the next start is allowed.

    Held off for `first_s` after the first failure, doubling with each further one up to `most_s`.
    `failure` is the last one since the service was ready, `failure_at_s` its wall-clock time. `failures`
    counts on until `proved`: what becomes ready and dies at once has not ended the row.
    """

    __slots__ = ("_clock", "_first_s", "_most_s", "_until", "_wall", "failure", "failure_at_s", "failures")

    def __init__(
        self,
        clock: Callable[[], float],
        wall: Callable[[], float],
        first_s: float = 5.0,
        most_s: float = 300.0,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._first_s = first_s
        self._most_s = most_s
        self._until = 0.0
        self.failures = 0
        self.failure: RuntimeFailure | None = None
        self.failure_at_s: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the next start is allowed; 0 where it is."""
        return max(0.0, self._until - self._clock())

    def failed(self, failure: RuntimeFailure) -> None:
        """Count a failure and hold off from now."""
        self.failures += 1
        self.failure = failure
        self.failure_at_s = self._wall()
        wait_s = min(self._first_s * 2 ** min(self.failures - 1, 30), self._most_s)
        self._until = self._clock() + wait_s

    def lift(self) -> None:
        """Allow a start now; the count stays."""
        self._until = 0.0

    def succeeded(self) -> None:
        """Forget the last failure, and allow a start; the count stays."""
        self.failure = self.failure_at_s = None
        self._until = 0.0

    def proved(self) -> None:
        """Forget all failures."""
        self.succeeded()
        self.failures = 0
