"""Since when a container's log lines are of its present or latest run."""

import pytest

from autostart.runtime.compose.inspection import log_tail

FIRST, SECOND, THIRD = (f"2026-01-01T00:00:0{second}.5Z" for second in (1, 2, 3))
NEVER = "0001-01-01T00:00:00Z"
SECONDS = {FIRST: 1767225601.5, SECOND: 1767225602.5}


class Engine:
    """One that knows one container, and remembers since when it was asked for log lines."""

    def __init__(self, begun: str, ended: str, *, runs: bool) -> None:
        self.state = {"StartedAt": begun, "FinishedAt": ended, "Running": runs}
        self.since: list[float | None] = []

    def inspect_container(self, _id: str) -> dict:
        return {"State": self.state}

    def logs(self, _id: str, *, since: float | None, **_: object) -> bytes:
        self.since.append(since)
        return b"a line\n"


RUNS = True
OVER = False


@pytest.mark.parametrize(
    ("runs", "begun", "ended", "ended_before_s", "since"),
    [
        (OVER, NEVER, NEVER, None, None),
        (RUNS, FIRST, NEVER, None, None),
        (RUNS, SECOND, FIRST, None, SECONDS[FIRST]),
        (OVER, FIRST, SECOND, 0.0, None),
        (OVER, SECOND, FIRST, 0.0, None),
        (OVER, SECOND, THIRD, SECONDS[FIRST], SECONDS[FIRST]),
        (OVER, SECOND, THIRD, None, SECONDS[SECOND] - 0.3),
        (OVER, SECOND, FIRST, None, SECONDS[FIRST] - 0.3),
        (OVER, FIRST, SECOND, SECONDS[SECOND], SECONDS[FIRST] - 0.3),
    ],
    ids=[
        "not-yet-run", "first-run", "later-run", "first-run-over", "first-run-over-before-it-began",
        "later-run-over", "not-started-here", "not-started-here-and-over-before-it-began", "not-started-again",
    ],
)  # fmt: skip
def test_lines_are_taken_since_the_end_of_the_run_before(runs, begun, ended, ended_before_s, since):
    engine = Engine(begun, ended, runs=runs)
    assert log_tail(engine, "1", 5, ended_before_s) == ["a line"]
    assert engine.since == [since]
