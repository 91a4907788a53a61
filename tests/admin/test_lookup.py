"""Which service a person means."""

import pytest

from autostart.admin.lookup import AmbiguousService, NoSuchService, find

HOSTS = ["whisper.example.org", "whisperx.example.org", "tts.example.org"]
ALIASES = {"w.example.net": "whisper.example.org", "speech.example.org": "tts.example.org"}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("whisper.example.org", "whisper.example.org"),
        ("Whisper.Example.ORG.", "whisper.example.org"),
        ("w.example.net", "whisper.example.org"),
        ("whisper", "whisper.example.org"),
        ("whisper.", "whisper.example.org"),
        ("whisperx", "whisperx.example.org"),
        ("t", "tts.example.org"),
        ("speech", "tts.example.org"),
        (" tts ", "tts.example.org"),
    ],
)
def test_names_aliases_and_beginnings_lead_to_the_service(wanted, found):
    assert find(wanted, HOSTS, ALIASES) == found


def test_beginning_of_a_name_and_of_its_own_alias_is_not_ambiguous():
    assert find("whisp", ["whisper.test"], {"whisper.lan": "whisper.test"}) == "whisper.test"


def test_beginning_of_several_names_them_all():
    with pytest.raises(AmbiguousService) as raised:
        find("whi", HOSTS, ALIASES)
    assert raised.value.candidates == ("whisper.example.org", "whisperx.example.org")


def test_unknown_name_offers_what_comes_near():
    with pytest.raises(NoSuchService) as raised:
        find("isperx", HOSTS, ALIASES)
    assert raised.value.similar == ("whisperx.example.org",)


@pytest.mark.parametrize("wanted", ["", " ", "."])
def test_nothing_means_no_service_even_where_there_is_only_one(wanted):
    with pytest.raises(NoSuchService):
        find(wanted, HOSTS[:1], {})
