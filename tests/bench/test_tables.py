"""Each table runs, in a tiny size, and yields its rows. What it finds is nobody's concern here."""

import contextlib
import os
from typing import NoReturn

import pytest

from bench import cold, events, idle, isolation, speech, table, upload, waiting, warm
from bench.engine import BACKEND_IMAGE, connect
from bench.stand import Missing, model_directory
from bench.table import Row


def _figures(rows: list[Row]) -> dict[str, Row]:
    found = {row.figure: row for row in rows}
    assert len(found) == len(rows)
    assert all(row.measured is not None and row.measured >= 0 for row in rows), rows
    return found


def skip(missing: Missing) -> NoReturn:
    """Skip what the machine lacks something for; fail where the whole suite is asked for."""
    if os.environ.get("AUTOSTART_REQUIRE_DOCKER") == "1":
        pytest.fail(str(missing), pytrace=False)
    pytest.skip(str(missing))


@pytest.fixture
def engine():
    try:
        client = connect(BACKEND_IMAGE)
    except Missing as exc:
        skip(exc)
    with contextlib.closing(client):
        yield client


def test_cold_tells_what_a_process_is_lengthened_by():
    rows = _figures(cold.measure_process(1))
    assert rows["process, plain port: added, p50"].limit == 10
    assert rows["process, plain port: added, p99"].limit == 50
    assert (
        rows["process, plain port: first byte, p50"].measured
        > rows["process, plain port: added, p50"].measured
    )


def containers(engine):
    """The containers of benchmarks, also of one that somebody else runs or that was killed."""
    return {item["Id"] for item in engine.containers(all=True, filters={"name": "asbench"})}


@pytest.mark.docker
def test_cold_tells_what_a_container_is_lengthened_by(engine):
    kind = cold.KINDS[-1]
    of_others = containers(engine)
    rows = _figures(cold.measure_container(engine, kind, 1))
    assert rows[f"{kind.name}: added, p50"].limit == 150
    # What the container took itself, 0.2 s and its start, is not counted.
    first_byte = rows[f"{kind.name}: first byte, p50"].measured
    assert first_byte - rows[f"{kind.name}: added, p50"].measured > 200
    assert containers(engine) <= of_others


@pytest.mark.docker
def test_cold_tells_how_fast_a_paused_container_answers(engine):
    of_others = containers(engine)
    rows = _figures(cold.measure_paused(engine, 1))
    assert [rows[f"container, paused: first byte, {share}"].limit for share in ("p50", "p99")] == [100, 100]
    assert containers(engine) <= of_others


def test_speech_is_split_into_phases():
    try:
        model = str(model_directory())
    except Missing as exc:
        skip(exc)
    rows = _figures(speech.measure_process(model, 1))
    total = rows["process: to the transcript"]
    assert total.limit == 2.5
    parts = sum(rows[f"process: {phase}"].measured for phase in ("runtime", "ready", "answer"))
    assert parts == pytest.approx(total.measured)


def test_warm_compares_with_nginx():
    try:
        rows = _figures(warm.measure(1, 1, {"autostart": {}}))
    except Missing as exc:
        skip(exc)
    names = ("direct", "nginx", "autostart")
    assert {f"{name}: {what}" for name in names for what in ("requests/s", "p50", "p99")} <= set(rows)
    assert "of nginx" in rows["autostart: requests/s"].note


def test_upload_tells_speed_and_peak_memory():
    rows = _figures(upload.measure(1_000_000, 1, 0.1))
    assert rows["through autostart: peak memory"].limit == 60
    assert rows["to a sleeping service: peak memory"].limit == 60
    assert {"direct", "through autostart", "to a sleeping service"} <= set(rows)


def test_events_tell_how_late_each_is():
    rows = _figures(events.measure(1))
    assert all(row.limit == 20 for row in rows.values())
    latest = rows["through autostart: the latest of all"].measured
    assert latest >= rows["through autostart: p99"].measured >= rows["through autostart: p50"].measured > 0
    assert rows["added to an event, p50"].note == "200 events"


TINY = isolation.Size(many=2, rounds=1, seconds=0.05, wakes=1)
OF_THE_OTHERS = {"warm, p50": None, "warm, p99": 1.5, "wakes, p50": None, "wakes, p99": 1.5}


def _kinds(rows):
    """The ways to hang; each has all its figures, with their limits."""
    kinds = {figure.rpartition(": ")[0] for figure in rows}
    assert {figure: row.limit for figure, row in rows.items()} == {
        f"{kind}: {what}": limit for kind in kinds for what, limit in OF_THE_OTHERS.items()
    }
    return kinds


def test_isolation_compares_the_others_with_and_without_processes_that_hang():
    rows = _figures(isolation.measure_processes(TINY))
    assert _kinds(rows) == {
        "process, never listens",
        "process, accepts and never answers",
        "process, hears no SIGTERM",
    }
    assert "while 2 hang" in rows["process, never listens: warm, p99"].note


@pytest.mark.docker
def test_isolation_compares_the_others_with_and_without_an_engine_that_hangs(engine):
    of_others = containers(engine)
    rows = _figures(isolation.measure_projects(TINY))
    calls = ("look", "start", "stop", "log fetch", "health check")
    assert _kinds(rows) == {f"engine, {call} hangs" for call in calls}
    assert containers(engine) <= of_others


def test_waiting_requests_share_a_start_and_those_that_stay_are_answered():
    rows = _figures(waiting.measure(12, 100_000, 2))
    for name in ("GET", "0.1 MB upload"):
        assert rows[f"{name}: memory of each"].limit == 30
        assert rows[f"{name}: starts"].measured == 1
        assert rows[f"{name}: not answered with 200"].measured == 0


def test_idle_tells_memory_and_cpu():
    rows = _figures(idle.measure_processes(3, 0.1))
    assert rows["processes: memory"].limit == 80
    assert rows["processes: CPU"].limit == 0.5


def test_figure_over_its_limit_is_marked():
    text = table.write("Title", [Row("a", 2.0, "ms", 1.0), Row("b", 1.0, "ms", 1.0), Row("c", 5.0, "ms")])
    assert [line for line in text.splitlines() if "OVER" in line] == [
        "| a      | 2 ms     | 1 ms OVER |      |"
    ]


def test_row_of_what_the_machine_lacks_says_so():
    row = table.skipped("warm", "wrk is not installed")
    assert not row.is_over
    assert "| skipped: wrk is not installed |" in table.write("Title", [row])


@pytest.mark.parametrize(("share", "expected"), [(0.5, 20), (0.99, 40), (0.25, 10), (0.75, 30)])
def test_percentile_is_a_value_that_was_measured(share, expected):
    assert table.percentile([40, 10, 30, 20], share) == expected
