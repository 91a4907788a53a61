"""API keys and CORS: who gets in, what is told to who does not, and that no key is ever shown."""

import asyncio
import hashlib

import httpx
import pytest
from fastapi import FastAPI, Request
from speech_app import FakeEngine, Served
from speech_common.environment import Environment, SettingError
from speech_common.errors import MissingKey, WrongKey
from speech_common.keys import ApiKeys, owner_of
from speech_common.layers import with_layers
from speech_common.replies import install_error_handlers
from whisper_server.settings import Settings

KEYS = ApiKeys(["first-key", "second-key"])
PAGE = "https://app.example.org"


def service(**layers):
    """A service whose one route tells whose the request is and how much of its body it read."""
    app = FastAPI()
    install_error_handlers(app)

    @app.post("/owner")
    async def owner(request: Request):
        return {"owner": owner_of(request.scope), "bytes": len(await request.body())}

    @app.get("/health/live")
    async def live():
        return {"status": "ok"}

    @app.get("/broken")
    async def broken():
        raise KeyError

    return with_layers(app, **layers)


def ask(app, method, path, **kwargs):
    async def once():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **kwargs)

    return asyncio.run(once())


def bearer(key):
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_every_configured_key_opens_the_service(key):
    response = ask(service(keys=KEYS), "POST", "/owner", headers=bearer(key), content=b"12")
    assert (response.status_code, response.json()["bytes"]) == (200, 2)


def test_owner_is_a_digest_equal_for_equal_keys_alone():
    app = service(keys=KEYS)
    owners = [
        ask(app, "POST", "/owner", headers=bearer(key)).json()["owner"]
        for key in ("first-key", "first-key", "second-key")
    ]
    assert owners[0] == owners[1] == hashlib.sha256(b"first-key").hexdigest()
    assert owners[2] != owners[0]


def test_without_configured_keys_everybody_may_ask_and_nobody_is_an_owner():
    response = ask(service(keys=ApiKeys()), "POST", "/owner", headers=bearer("unused"))
    assert response.json() == {"owner": None, "bytes": 0}


@pytest.mark.parametrize(
    ("authorization", "code", "challenge"),
    [
        ([], "missing_api_key", 'Bearer realm="speech"'),
        (["Bearer"], "missing_api_key", 'Bearer realm="speech"'),
        (["Basic first-key"], "missing_api_key", 'Bearer realm="speech"'),
        (["first-key"], "missing_api_key", 'Bearer realm="speech"'),
        (["Bearer first-key", "Bearer first-key"], "missing_api_key", 'Bearer realm="speech"'),
        (["Bearer FIRST-KEY"], "invalid_api_key", 'Bearer realm="speech", error="invalid_token"'),
        (["Bearer first-key,second-key"], "invalid_api_key", 'Bearer realm="speech", error="invalid_token"'),
        (["Bearer first-keyx"], "invalid_api_key", 'Bearer realm="speech", error="invalid_token"'),
        ([b"Bearer \xff\xfe"], "invalid_api_key", 'Bearer realm="speech", error="invalid_token"'),
    ],
)
def test_request_without_a_valid_key_is_401_in_openais_shape(authorization, code, challenge):
    headers = [("authorization", value) for value in authorization]
    response = ask(service(keys=KEYS), "POST", "/owner", headers=headers, content=b"1")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == challenge
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, code)


def test_scheme_is_read_in_any_case():
    response = ask(service(keys=KEYS), "POST", "/owner", headers={"authorization": "bearer  first-key"})
    assert response.status_code == 200


def test_refusal_comes_before_the_body_is_read():
    async def once():
        read, sent = [], []

        async def receive():
            read.append(1)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/owner", "headers": [], "query_string": b""}
        await service(keys=KEYS)(scope, receive, send)
        return read, sent[0]["status"]

    assert asyncio.run(once()) == ([], 401)


@pytest.mark.parametrize("path", ["/health/live", "/docs", "/openapi.json"])
def test_health_and_docs_stay_open(path):
    assert ask(service(keys=KEYS), "GET", path).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/healthy", "/v1/models", "/docs.json", "/metrics"])
def test_nothing_else_is_told_to_strangers(path):
    assert ask(service(keys=KEYS), "GET", path).status_code == 401


def test_keys_come_from_a_list_and_from_a_file_with_comments(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\n\nfrom-file  # Ann's\r\n  other-file\n")
    keys = ApiKeys.read(" one , two,", str(file))
    for key in ("one", "two", "from-file", "other-file"):
        assert keys.owner([f"Bearer {key}"])
    for key in ("#", "ours", "Ann's", ""):
        with pytest.raises((MissingKey, WrongKey)):
            keys.owner([f"Bearer {key}"])


@pytest.mark.parametrize("listed", [",", "good,NEEDLE with space", "NEEDLE\u00e9"])
def test_list_that_is_no_list_of_keys_is_refused_and_not_shown(listed):
    with pytest.raises(SettingError, match="API_KEYS=") as caught:
        ApiKeys.read(listed, "")
    assert "NEEDLE" not in str(caught.value) + repr(caught.value.value)


@pytest.mark.parametrize("content", [None, b"", b"# none yet\n", b"NEEDLE with space", b"\xff\xfe"])
def test_file_without_keys_does_not_leave_the_service_open(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match="API_KEYS_FILE=") as caught:
        ApiKeys.read("", str(file))
    assert "NEEDLE" not in str(caught.value)


def test_settings_show_no_key():
    settings = Settings.from_environment({"API_KEYS": "NEEDLE-1,NEEDLE-2", "CORS_ORIGINS": f"{PAGE}, *"})
    assert "NEEDLE" not in repr(settings)
    assert settings.api_keys
    assert settings.cors_origins == (PAGE, "*")


@pytest.mark.parametrize(
    "origin",
    [
        "http://127.0.0.1:3000",
        "http://[::1]",
        "tauri://localhost",
        "chrome-extension://abcdefghijklmnop",
        "app+x://a_b",
    ],
)
def test_origin_may_be_a_page_or_a_program_with_a_page_inside(origin):
    assert Environment({"CORS_ORIGINS": origin}).origins("CORS_ORIGINS") == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "app.example.org",
        "https://app.example.org/",
        "https://A.org",
        "null",
        "://a",
        "1a://b",
        "file://",
        "a://b c",
    ],
)
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(SettingError, match="CORS_ORIGINS"):
        Environment({"CORS_ORIGINS": origin}).origins("CORS_ORIGINS")


PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,x-stainless-lang",
}


def test_preflight_needs_no_key():
    app = service(keys=KEYS, cors_origins=[PAGE])
    response = ask(app, "OPTIONS", "/owner", headers={"origin": PAGE, **PREFLIGHT})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == PAGE
    assert "POST" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
    assert "access-control-allow-credentials" not in response.headers


def test_preflight_of_another_page_is_refused_in_openais_shape():
    told = []
    app = service(cors_origins=[PAGE], observe=told.append)
    response = ask(app, "OPTIONS", "/owner", headers={"origin": "https://evil.example", **PREFLIGHT})
    assert [facts.error_code for facts in told] == ["cors_refused"]
    assert (response.status_code, response.json()["error"]["code"]) == (400, "cors_refused")
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"].startswith("Origin")


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/owner", bearer("first-key"), 200),
        ("POST", "/owner", {}, 401),
        ("GET", "/nothing", bearer("first-key"), 404),
        ("GET", "/broken", bearer("first-key"), 500),
    ],
)
def test_answers_and_errors_may_be_read_by_a_configured_page(method, path, headers, status):
    app = service(keys=KEYS, cors_origins=[PAGE])
    response = ask(app, method, path, headers={"origin": PAGE, **headers})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == PAGE
    assert {"location", "retry-after", "x-request-id"} <= set(
        response.headers["access-control-expose-headers"].split(", ")
    )
    other = ask(app, method, path, headers={"origin": "https://evil.example", **headers})
    assert "access-control-allow-origin" not in other.headers


def test_keys_and_origins_are_asked_for_at_every_door_of_the_real_application():
    with Served(FakeEngine(" Hello."), API_KEYS="first-key,second-key", CORS_ORIGINS=PAGE) as served:
        for path in (
            "/v1/audio/transcriptions",
            "/v1/audio/translations",
            "/v1/audio/detect-language",
            "/transcribe",
        ):
            refused = served.post(path=path, headers={"origin": PAGE})
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "missing_api_key")
            assert refused.headers["access-control-allow-origin"] == PAGE
            opened = served.post(path=path, headers={"origin": PAGE, **bearer("second-key")})
            assert opened.status_code == 200
            assert opened.headers["access-control-allow-origin"] == PAGE
        assert served.get("/metrics").status_code == 401
        assert served.get("/health").status_code == 200


def test_description_says_which_paths_want_a_key():
    with Served(FakeEngine(), API_KEYS="first-key") as served:
        description = served.get("/openapi.json").json()
    schemes = description["components"]["securitySchemes"]
    assert [(scheme["type"], scheme["scheme"]) for scheme in schemes.values()] == [("http", "bearer")]
    assert description["security"] == [{name: [] for name in schemes}]
    open_ones = {
        path
        for path, operations in description["paths"].items()
        for operation in operations.values()
        if operation.get("security") == []
    }
    assert open_ones == {"/health", "/health/busy", "/health/live", "/health/ready"}


def test_description_of_an_open_service_wants_no_key():
    with Served(FakeEngine()) as served:
        assert "security" not in served.get("/openapi.json").text


def test_without_configured_origins_no_page_may_read():
    response = ask(service(), "POST", "/owner", headers={"origin": PAGE})
    assert "access-control-allow-origin" not in response.headers
