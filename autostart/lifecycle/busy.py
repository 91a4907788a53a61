"""Ask a ready service whether it works on something that no open request tells of: a queued job, say.

Owns the questions, when they are due and what was heard last; the state machine in `service.py` decides what
follows. An answer that cannot be had counts as busy, so that no work is cut, and is told.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autostart.config import Service as ServiceConfig
from autostart.errors import BusyUnknown, RuntimeFailure
from autostart.lifecycle import limits, probe
from autostart.lifecycle.holdoff import HoldOff
from autostart.runtime.base import Endpoint, Runtime

_LEAST_PAUSE_S = 1.0
_MOST_PAUSE_S = 15.0
_ASKED_IN_AN_IDLE_TIME = 10
_MOST_ANSWER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OwnWork:
    """What was heard of a service's own work; `failure` is why one of the questions had no usable answer."""

    is_busy: bool
    words: str
    failure: RuntimeFailure | None = None

    @property
    def keeps_up(self) -> bool:
        """Say whether it may not be stopped: it is busy, or nobody can tell."""
        return self.is_busy or self.failure is not None


class BusyCheck:
    """The questions to one run of a service, from when it became ready until it is not, or is asked otherwise.

    `last` is the latest answer; None before the first, and after use.
    """

    def __init__(
        self, config: ServiceConfig, host: str, runtime: Runtime, clock: Callable[[], float]
    ) -> None:
        self._config = config
        self._host = host
        self._runtime = runtime
        self._clock = clock
        self._asked_at = clock()
        self._cpu_before: tuple[float, Mapping[str, float]] | None = None
        self._uses = 0
        self._told = ""
        self._tell_later = HoldOff(clock, clock)
        self.last: OwnWork | None = None

    @classmethod
    def wanted(
        cls, config: ServiceConfig, host: str, runtime: Runtime, clock: Callable[[], float]
    ) -> "BusyCheck | None":
        """Return a new one where the configuration asks for it."""
        if config.busy_path is None and config.busy_cpu_percent is None:
            return None
        return cls(config, host, runtime, clock)

    def is_due(self, idle_at: float) -> bool:
        """Say whether to ask now, where it is to be stopped at `idle_at` (monotonic seconds, inf for never).

        That is ten times in an idle time but at least every 15 s, when the time is up, and never twice a second.
        """
        if math.isinf(idle_at):
            return False
        usual_s = min(self._config.idle_timeout / _ASKED_IN_AN_IDLE_TIME, _MOST_PAUSE_S)
        pause_s = max(_LEAST_PAUSE_S, min(usual_s, idle_at - self._asked_at))
        return self._clock() >= self._asked_at + pause_s

    def used(self) -> None:
        """Forget what was heard, also of a question under way: a request may have left work, and cost CPU itself."""
        self._uses += 1
        self._cpu_before = None
        self.last = None

    def is_news(self, failure: RuntimeFailure) -> bool:
        """Say whether this failure is to be told, and take note that it was; one that comes and goes, ever less often."""
        if str(failure) == self._told or self._tell_later.left_s:
            return False
        self._told = str(failure)
        self._tell_later.failed(failure)
        return True

    async def ask(self, endpoint: Endpoint) -> OwnWork | None:
        """Ask everything that is configured; each question has a limit.

        None where only the next time will tell: at the first look at the CPU, and where it was used meanwhile.
        """
        uses = self._uses
        busy: list[str] = []
        at_rest: list[str] = []
        failures: list[RuntimeFailure] = []
        is_known = True
        if (path := self._config.busy_path) is not None:
            try:
                says_so = await self._ask_path(endpoint, path)
            except RuntimeFailure as failure:
                failures.append(failure)
            else:
                words = f"{_shown(path)} says that it is {'' if says_so else 'not '}busy (busyPath)"
                (busy if says_so else at_rest).append(words)
        if (limit := self._config.busy_cpu_percent) is not None:
            try:
                percent = await self._measure_cpu()
            except RuntimeFailure as failure:
                self._cpu_before = None
                failures.append(failure)
            else:
                is_known = percent is not None
                if percent is not None:
                    words = f"its CPU is at {percent:.1f} % of a core (busyCpuPercent is {limit:g})"
                    (busy if percent > limit else at_rest).append(words)
        self._asked_at = self._clock()
        if uses != self._uses:
            self._cpu_before = None
            return None
        if not (busy or failures or is_known):
            return None
        if not failures:
            self._told = ""
        self.last = OwnWork(bool(busy), ", ".join(busy or at_rest), failures[0] if failures else None)
        return self.last

    async def _ask_path(self, endpoint: Endpoint, path: str) -> bool:
        limit_s = self._config.readiness.attempt_timeout
        async with limits.limited(f"asking {_shown(path)} (busyPath)", limit_s, "readiness.attemptTimeout"):
            try:
                status, body = await probe.get(endpoint, path, self._host, _MOST_ANSWER_BYTES)
            except probe.TROUBLE as exc:
                reason = getattr(exc, "strerror", None)
                raise _unknown(path, f"could not be asked{f': {reason}' if reason else ''}") from exc
        if status != 200:
            raise _unknown(path, f"answered {status} instead of 200")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as exc:
            raise _unknown(path, "answered something that is no JSON") from exc
        if not isinstance(answer, dict) or not isinstance(answer.get("busy"), bool):
            raise _unknown(path, 'answered JSON without a true or false under "busy"')
        return bool(answer["busy"])

    async def _measure_cpu(self) -> float | None:
        """Return the share of CPU since the last measurement, in percent of one core; None where there was none."""
        used = await limits.cpu_seconds(self._runtime)
        if not used:
            raise BusyUnknown("nothing runs of which the CPU time could be read (busyCpuPercent)")
        now = self._clock()
        before, self._cpu_before = self._cpu_before, (now, used)
        if before is None or now <= before[0]:
            return None
        return 100 * cpu_between(before[1], used) / (now - before[0])


def cpu_between(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the CPU seconds used between two readings. What is new, or began anew, has used all that it tells."""
    return sum(
        seconds - before[part] if before.get(part, math.inf) <= seconds else seconds
        for part, seconds in after.items()
    )


def _shown(path: str) -> str:
    return path.partition("?")[0]  # keys are passed in queries


def _unknown(path: str, what: str) -> BusyUnknown:
    return BusyUnknown(
        f"busyPath {_shown(path)} {what}", hint='it has to answer 200 with {"busy": true} or {"busy": false}'
    )
