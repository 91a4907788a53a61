"""Durations and foreign text as people get to see them."""

import pytest

from autostart.cli import where
from autostart.config.models import Admin
from autostart.words import age, counted, printable


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0s"),
        (0.42, "0.4s"),
        (1, "1s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (61, "1m 1s"),
        (3599.6, "1h"),
        (3600, "1h"),
        (7260, "2h 1m"),
        (7201, "2h"),
        (86400, "1d"),
        (100 * 86400 + 3600, "100d 1h"),
    ],
)
def test_age_has_at_most_two_units(seconds, told):
    assert age(seconds) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [("Größe", "Größe"), ("a\x1b[31mb", r"a\x1b[31mb"), ("a\nb", r"a\nb"), ("\u202e", r"\u202e")],
)
def test_control_characters_are_escaped(text, told):
    assert printable(text) == told


def test_default_socket_is_that_of_the_models():
    assert Admin().socket == where.DEFAULT_SOCKET


def test_configuration_is_looked_for_in_the_order_that_help_tells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOSTART_CONFIG", raising=False)
    monkeypatch.setattr(where, "SYSTEM_CONFIG", tmp_path / "etc.json")
    assert where.config_path(None) == tmp_path / "etc.json"
    (tmp_path / "config.json").write_text("{}")
    assert where.config_path(None) == where.LOCAL_CONFIG
    (tmp_path / "etc.json").write_text("{}")
    assert where.config_path(None) == tmp_path / "etc.json"
    monkeypatch.setenv("AUTOSTART_CONFIG", "/from/environment.json")
    assert str(where.config_path(None)) == "/from/environment.json"
    assert str(where.config_path("/given.json")) == "/given.json"


def test_one_is_not_told_as_many():
    assert [counted(number, "service") for number in (0, 1, 2)] == ["0 services", "1 service", "2 services"]
