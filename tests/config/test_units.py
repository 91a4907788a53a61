"""Durations and sizes: what people write is read, and what is written is read back."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autostart.config.units import format_duration, format_size, parse_duration, parse_size

SECONDS = st.floats(min_value=0, allow_nan=False, allow_infinity=False, max_value=1e18) | st.integers(
    0, 10**12
).map(float)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("15m", 900.0),
        ("1h30m", 5400.0),
        ("200ms", 0.2),
        ("1.5h", 5400.0),
        ("2d", 172800.0),
        (" 5s ", 5.0),
        ("0", 0.0),
        ("30", 30.0),
        (30, 30.0),
        (0.25, 0.25),
    ],
)
def test_duration_is_read_as_people_write_it(text: object, seconds: float) -> None:
    assert seconds == parse_duration(text)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "m",
        "15 m",
        "15min",
        "-5s",
        "5s-",
        "1_000",
        "١٥m",
        "inf",
        "nan",
        "1e999",
        "9" * 70 + "s",
        -1,
        True,
        None,
        [],
        float("inf"),
        float("nan"),
        10**400,
        {},
        "never",
    ],
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)


@given(SECONDS)
def test_written_duration_is_read_back_exactly(seconds: float) -> None:
    assert seconds == parse_duration(format_duration(seconds))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (900, "15m"),
        (5400, "1h30m"),
        (0, "0s"),
        (0.25, "0.25s"),
        (60, "1m"),
        (86461, "1d1m1s"),
        (float("inf"), "never"),
    ],
)
def test_duration_is_written_as_people_do(seconds: float, text: str) -> None:
    assert text == format_duration(seconds)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("500MB", 500_000_000),
        ("4GiB", 4 * 2**30),
        ("1.5k", 1500),
        ("64 KiB", 65536),
        ("12", 12),
        ("9007199254740993", 9007199254740993),
        ("0B", 0),
        (5e8, 500_000_000),
        (17, 17),
    ],
)
def test_size_is_read_as_people_write_it(text: object, size_bytes: int) -> None:
    assert size_bytes == parse_size(text)


@pytest.mark.parametrize(
    "value",
    ["", "MB", "5 X", "-5MB", "5mb", "1e3", -1, 1.5, True, None, [], float("inf"), float("nan"), "9" * 70],
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(value)


@given(st.integers(0, 2**70) | st.builds(lambda n, e: n * 2**e, st.integers(0, 5000), st.integers(0, 50)))
def test_written_size_is_read_back_exactly(size_bytes: int) -> None:
    assert size_bytes == parse_size(format_size(size_bytes))


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(500_000_000, "500MB"), (512_000_000, "512MB"), (4 * 2**30, "4GiB"), (1234, "1234"), (0, "0")],
)
def test_size_is_written_as_people_do(size_bytes: int, text: str) -> None:
    assert text == format_size(size_bytes)


@given(st.text(max_size=80))
def test_no_text_whatsoever_raises_anything_but_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0
