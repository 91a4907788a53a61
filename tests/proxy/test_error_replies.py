"""The table of errors: it covers the tree, and says what DESIGN.md section 5 says."""

import json
from pathlib import Path

import pytest

from autostart import errors
from autostart.proxy.replies import TABLE, Occasion, reply, row_of

FAILURE = errors.Exited("the <service>", 3, log_tail=("one", "<two>"))
DOOR = "s.example.org"

EVERY = [
    errors.UnknownHost("x.example.org"),
    errors.Unauthorized("the realm", offered=True),
    errors.Forbidden("alice"),
    errors.BodyTooLarge(5, 6),
    errors.BadRequest("odd"),
    errors.HeadersTooLarge(65536),
    errors.HeaderTimeout(30.0),
    errors.BodyTimeout(300.0),
    errors.StartFailed(DOOR, FAILURE, 5.0),
    errors.StartHeldOff(DOOR, FAILURE, 4.2),
    errors.StartTimeout(DOOR, 60.0, 3.0),
    errors.Starting(DOOR, 7.0),
    errors.Asleep(DOOR),
    errors.ShuttingDown(DOOR),
    errors.InUse(DOOR, 2),
    errors.UpstreamFailed(DOOR, "refused"),
    errors.UpstreamTimeout(DOOR, 12.0),
]

DESIGNED = {
    "unknown_host": 404,
    "unauthorized": 401,
    "forbidden": 403,
    "body_too_large": 413,
    "start_failed": 503,
    "start_held_off": 503,
    "start_timeout": 504,
    "starting": 503,
    "shutting_down": 503,
    "upstream_failed": 502,
    "upstream_timeout": 504,
}


def below(cls):
    for child in cls.__subclasses__():
        yield child
        yield from below(child)


def answer(error, **occasion):
    response = reply(error, Occasion(request_id="r1", service=DOOR, state="failed", **occasion))
    return response, json.loads(response.text)


def test_the_table_covers_the_tree():
    families = (errors.RequestRefused, errors.ServiceUnavailable)
    for cls in below(errors.AutostartError):
        if issubclass(cls, families) and cls not in families:
            assert cls in TABLE, f"{cls.__name__} has no row of its own"
        nearest = next(base for base in cls.__mro__ if base in TABLE)
        assert nearest is not errors.AutostartError or cls in families


def test_every_error_that_a_request_can_meet_is_tried_here():
    families = (errors.RequestRefused, errors.ServiceUnavailable)
    met = {cls for cls in below(errors.AutostartError) if issubclass(cls, families) and cls not in families}
    assert {type(error) for error in EVERY} == met


def test_statuses_and_codes_are_those_of_the_design():
    codes = {row_of(error).code: row_of(error).status for error in EVERY}
    assert {code: codes.get(code) for code in DESIGNED} == DESIGNED


def test_codes_are_unique():
    codes = [row.code for row in TABLE.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_every_reply_has_the_shape_that_openai_clients_read(error):
    response, told = answer(error)
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert told["error"]["message"]
    assert (told["service"], told["state"], told["request_id"]) == (DOOR, "failed", "r1")
    assert "retry_after_s" in told
    assert response.headers["X-Request-Id"] == "r1"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.content_type == "application/json"
    assert not 200 <= response.status < 300


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_every_reply_has_a_page_for_people(error):
    response = reply(error, Occasion(request_id="r1", service=DOOR, html=True, details="log"))
    assert response.content_type == "text/html"
    assert response.status == row_of(error).status
    assert "<script" not in response.text
    assert "<two>" not in response.text
    assert "<service>" not in response.text
    assert "http" not in response.text.replace("http-equiv", "")


def test_retry_after_is_whole_seconds_and_told_twice():
    response, told = answer(errors.StartHeldOff(DOOR, FAILURE, 4.2))
    assert (response.headers["Retry-After"], told["retry_after_s"]) == ("5", 5)


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
def test_only_a_failed_start_tells_the_sdk_not_to_repeat(error):
    repeats = reply(error, Occasion("r1")).headers.get("x-should-retry")
    assert repeats == ("false" if isinstance(error, errors.StartFailed) else None)


def test_wrong_credentials_are_told_both_ways_in():
    response = reply(errors.Unauthorized('a "realm"', offered=False), Occasion("r1"))
    basic, bearer = response.headers.getall("WWW-Authenticate")
    assert basic == 'Basic realm="a \\"realm\\"", charset="UTF-8"'
    assert bearer == 'Bearer realm="a \\"realm\\""'


@pytest.mark.parametrize(
    ("details", "cause", "log_tail"),
    [("none", None, None), ("cause", "exited", None), ("log", "exited", ["one", "<two>"])],
)
def test_the_cause_is_told_to_those_who_may_see_it(details, cause, log_tail):
    error = errors.StartFailed(DOOR, FAILURE, 5.0)
    response, told = answer(error, details=details)
    assert (told.get("cause"), told.get("log_tail")) == (cause, log_tail)
    assert ("exit code 3" in response.text) == (cause is not None)
    page = reply(error, Occasion("r1", html=True, details=details)).text
    assert ("exit code 3" in page) == (cause is not None)
    assert ("&lt;two&gt;" in page) == (log_tail is not None)


@pytest.mark.parametrize(
    "error",
    [
        errors.AutostartError("secret"),
        errors.CommandFailed("secret", 1, []),
        errors.ConfigError(Path("secret"), []),
    ],
)
def test_what_is_no_answer_to_a_request_says_nothing_of_itself(error):
    response = reply(error, Occasion("r1"))
    assert response.status >= 500
    assert "secret" not in response.text
