"""The file for nginx, in a real nginx before a real autostart: whose limits end a request, and in whose words."""

import os
import shutil
import ssl
import subprocess
from typing import Self

import httpx
import pytest
from processes import free_port
from program import HOST, WITH_US, Gateway, running
from waiting import LIMIT_S, block_until

from autostart import nginx
from autostart.config import Config

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
MAIN = """
daemon off;
pid {directory}/nginx.pid;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    {paths}
    include {directory}/autostart.conf;
}}
"""


class Front:
    """An nginx of our own, with what `autostart render nginx` prints for a gateway and a certificate for its host."""

    def __init__(self, gateway: Gateway) -> None:
        self.directory = gateway.directory / "nginx"
        self.certificate = self.directory / HOST / "fullchain.pem"
        self.certificate.parent.mkdir(parents=True)
        key = self.certificate.with_name("privkey.pem")
        made = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={HOST}".split()
        made += ["-addext", f"subjectAltName=DNS:{HOST}", "-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(made, check=True, capture_output=True, timeout=LIMIT_S)
        self.http_port, self.port = free_port(), free_port()
        ports = ("--http-port", str(self.http_port), "--https-port", str(self.port))
        rendered = gateway.cli("render", "nginx", "--certificates", str(self.directory), *ports)
        assert rendered.returncode == 0, rendered.stderr
        (self.directory / "autostart.conf").write_text(rendered.stdout)
        temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = " ".join(f"{name}_temp_path {self.directory}/{name};" for name in temporary)
        self.config = self.directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # the socket is in a directory of the test's own
        self.config.write_text(MAIN.format(directory=self.directory, paths=paths, user=user))
        self.log = self.directory / "error.log"
        self.log.touch()
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Self:
        self.process = subprocess.Popen([*WITH_US, NGINX, "-e", str(self.log), "-c", str(self.config)])
        block_until(lambda: self.process.poll() is not None or self._answers(), self.log.read_text)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(LIMIT_S)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.http_port}/").status_code == 308
        except httpx.TransportError:
            return False

    def ask(self, path: str, method: str = "GET", headers=(), **options) -> httpx.Response:
        trust = ssl.create_default_context(cafile=str(self.certificate))
        with httpx.Client(verify=trust, timeout=LIMIT_S) as client:
            url = f"https://127.0.0.1:{self.port}{path}"
            extensions = {"sni_hostname": HOST}
            asking = [("Host", HOST), *headers]
            return client.request(method, url, headers=asking, extensions=extensions, **options)


@pytest.fixture
def front(tmp_path):
    """Make nginx before an autostart with one service that has these options."""

    if NGINX is None:
        is_required = os.environ.get("AUTOSTART_REQUIRE_NGINX") == "1"
        (pytest.fail if is_required else pytest.skip)("nginx is not installed")

    def make(**options) -> tuple[Gateway, Front]:
        gateway = Gateway(tmp_path, listen=[f"unix:{tmp_path}/http.sock"])
        gateway.options["services"] = {HOST: gateway.service(**options)}
        gateway.write()
        return gateway, Front(gateway)

    return make


def test_a_service_wakes_through_nginx_and_hears_who_asks(front):
    gateway, nginx_before_it = front()
    with running(gateway), nginx_before_it as nginx_before_it:
        heard = dict(nginx_before_it.ask("/headers").json())
    assert heard["Host"] == HOST
    assert (heard["X-Forwarded-Proto"], heard["X-Forwarded-For"]) == ("https", "127.0.0.1")


def test_what_a_client_writes_about_itself_reaches_no_service(front):
    gateway, nginx_before_it = front()
    names = ("X-Real-IP", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Request-Id")
    with running(gateway), nginx_before_it as nginx_before_it:
        heard = nginx_before_it.ask("/headers", headers=[(name, "forged") for name in names])
    assert "forged" not in heard.text
    assert dict(heard.json())["X-Real-IP"] == "127.0.0.1"


def test_headers_that_nginx_alone_would_refuse_pass_and_over_the_limit_are_refused_in_autostarts_words(front):
    gateway, nginx_before_it = front()
    with running(gateway), nginx_before_it as nginx_before_it:
        assert nginx_before_it.ask("/pid", headers=[("X-A", "x" * 30_000)]).status_code == 200
        answer = nginx_before_it.ask("/pid", headers=[(f"X-{name}", "x" * 30_000) for name in "ABC"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


def test_a_service_that_says_nothing_is_told_by_autostart_and_not_by_nginx(front):
    gateway, nginx_before_it = front(responseTimeout=1)
    with running(gateway), nginx_before_it as nginx_before_it:
        answer = nginx_before_it.ask(gateway.slow)
        gateway.let_go()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")


def test_a_start_that_outlasts_the_wait_is_told_by_autostart_and_not_by_nginx(front, tmp_path):
    gateway, nginx_before_it = front(waitTimeout=1)
    service = gateway.options["services"][HOST]
    service["runtime"]["env"] = {"START_AT": str(gateway.gate)}
    gateway.write()
    with running(gateway), nginx_before_it as nginx_before_it:
        answer = nginx_before_it.ask("/", "POST", content=b"an hour of speech")
        gateway.let_go()
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "start_timeout")


def test_a_body_over_the_limit_is_refused_in_autostarts_words(front):
    gateway, nginx_before_it = front(maxBodySize="2MB")
    with running(gateway), nginx_before_it as nginx_before_it:
        answer = nginx_before_it.ask("/", "POST", content=bytes(2_000_001))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
        assert nginx_before_it.ask("/", "POST", content=bytes(2_000_000)).text == "2000000"


@pytest.mark.parametrize(
    ("limits", "least_s"),
    [
        ({}, 60 + 5 + 3600),
        ({"startTimeout": "10m"}, 600 + 5 + 3600),
        ({"startTimeout": "10m", "waitTimeout": "1m", "responseTimeout": "3h"}, 60 + 5 + 3 * 3600),
        ({"connectTimeout": "2m", "responseTimeout": 1}, 60 + 120 + 1),
    ],
)
def test_nginx_waits_longer_than_all_limits_of_a_request_together(limits, least_s):
    service = {"proxyPort": 8001, "composeDir": "/opt/whisper", **limits}
    rendered = nginx.render(Config.model_validate({"services": {HOST: service}}))
    found = dict(line.split() for line in rendered.splitlines() if "_timeout " in line)
    assert found.pop("client_header_timeout") == "30000ms;"
    assert least_s + 300 < int(found.pop("client_body_timeout").removesuffix("s;")) < least_s + 360
    assert sorted(found) == ["proxy_read_timeout", "proxy_send_timeout", "send_timeout"]
    assert all(least_s < int(value.removesuffix("s;")) < least_s + 60 for value in found.values())


def test_each_service_has_its_own_names_and_certificate():
    services = {
        "whisper.test": {"proxyPort": 8001, "composeDir": "/opt/a", "aliases": ["stt.test"]},
        "whisperx.test": {"proxyPort": 8002, "composeDir": "/opt/b"},
    }
    rendered = nginx.render(Config.model_validate({"services": services}), certificates="/etc/certs")
    assert "    server_name whisper.test stt.test;\n    ssl_certificate /etc/certs/whisper.test/" in rendered
    assert "    server_name whisperx.test;\n    ssl_certificate /etc/certs/whisperx.test/" in rendered


def test_a_broken_configuration_renders_nothing_and_says_where_to_look(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.path.write_text("{")
    rendered = gateway.cli("render", "nginx")
    assert (rendered.returncode, rendered.stdout) == (2, "")
    assert "autostart check" in rendered.stderr
