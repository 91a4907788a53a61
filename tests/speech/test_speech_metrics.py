"""`/metrics`: names and types by Prometheus' conventions, true counts, and no series that a caller can invent."""

import asyncio
import re
import subprocess
import sys
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI, Request
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from speech_common.errors import EmptyFile
from speech_common.layers import with_layers
from speech_common.loads import LoadTally, ModelFigures
from speech_common.metrics import Metrics, install_metrics
from speech_common.replies import install_error_handlers
from starlette.requests import ClientDisconnect


@dataclass
class Jobs:
    waiting: int = 3
    running: int = 2
    speed: float | None = 7.5


@dataclass
class Ended:
    state: str = "completed"
    created_s: float = 100.0
    started_s: float | None = 104.0
    ended_s: float | None = 106.0
    heard_s: float = 30.0
    is_counted: bool = True


class Service:
    """An application with metrics, and what is asked of it."""

    def __init__(self):
        self.metrics = Metrics()
        app = FastAPI(docs_url=None, redoc_url=None)
        install_error_handlers(app)
        install_metrics(app, self.metrics)

        @app.get("/v1/models/{name}")
        async def model(name: str):
            return {"id": name}

        @app.post("/empty")
        async def empty():
            raise EmptyFile

        @app.get("/broken")
        async def broken():
            raise KeyError

        @app.get("/gone")
        async def gone(request: Request):
            raise ClientDisconnect

        self._app = with_layers(app, observe=self.metrics.request_ended)

    def ask(self, method, path, **kwargs):
        async def once():
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **kwargs)

        return asyncio.run(once())

    def samples(self, name):
        """Return the samples of this name, by the values of their labels."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics").text)
        return {
            tuple(sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def full(service):
    """A service with something in every metric."""
    service.metrics.watch_jobs(Jobs())
    service.metrics.watch_models(lambda: ModelFigures(1, {"loaded": 2, "failed": 1}, 3.5))
    service.metrics.job_ended(Ended())
    service.ask("POST", "/empty")
    return service


def test_requests_are_counted_by_route_and_status(service):
    for name in ("a", "b"):
        service.ask("GET", f"/v1/models/{name}")
    service.ask("POST", "/v1/models/a")
    service.ask("POST", "/empty")
    assert service.samples("speech_http_requests_total") == {
        ("/v1/models/{name}", "200"): 2,
        ("/v1/models/{name}", "405"): 1,
        ("/empty", "400"): 1,
    }
    assert service.samples("speech_http_request_duration_seconds_count")[("/v1/models/{name}",)] == 3


def test_errors_are_counted_by_code(service):
    service.ask("POST", "/empty")
    service.ask("GET", "/nothing")
    service.ask("PUT", "/empty")
    service.ask("GET", "/broken")
    assert service.samples("speech_errors_total") == {
        ("empty_file",): 1,
        ("not_found",): 1,
        ("method_not_allowed",): 1,
        ("internal_error",): 1,
    }


def test_paths_and_methods_that_callers_invent_make_one_series(service):
    for number in range(20):
        service.ask("GET", f"/invented/{number}")
        service.ask(f"INVENTED{number}", f"/invented/{number}")
    assert service.samples("speech_http_requests_total") == {("other", "404"): 40}


def test_client_that_left_is_counted_as_such(service):
    service.ask("GET", "/gone")
    assert service.samples("speech_http_requests_total") == {("/gone", "499"): 1}
    assert service.samples("speech_errors_total") == {}


def test_jobs_are_counted_with_their_audio_and_their_times(service):
    service.metrics.job_ended(Ended())
    service.metrics.job_ended(Ended("cancelled", heard_s=5.0))
    service.metrics.job_ended(Ended("cancelled", started_s=None, heard_s=0.0))  # it never had a worker
    service.metrics.job_ended(Ended("failed", heard_s=7000.0, is_counted=False))  # no transcription
    assert service.samples("speech_jobs_total") == {("completed",): 1, ("cancelled",): 2, ("failed",): 1}
    assert service.samples("speech_audio_seconds_total") == {(): 35}
    assert service.samples("speech_processing_seconds_total") == {(): 4}
    assert service.samples("speech_job_wait_seconds_count") == {(): 3}
    assert service.samples("speech_job_wait_seconds_sum") == {(): 12}


def test_queue_and_models_are_shown_as_they_are_at_each_scrape(service):
    jobs, loads = Jobs(), {}
    service.metrics.watch_jobs(jobs)
    service.metrics.watch_models(lambda: ModelFigures(len(loads), loads, 1.5))
    assert service.samples("speech_jobs_waiting") == {(): 3}
    assert service.samples("speech_model_loads_total") == {}
    jobs.waiting, jobs.running, jobs.speed = 0, 1, None
    loads["failed"] = 4
    assert service.samples("speech_jobs_waiting") == {(): 0}
    assert service.samples("speech_jobs_running") == {(): 1}
    assert service.samples("speech_speed_ratio") == {}
    assert service.samples("speech_models_loaded") == {(): 1}
    assert service.samples("speech_model_loads_total") == {("failed",): 4}
    assert service.samples("speech_model_load_seconds_total") == {(): 1.5}


def test_loads_are_tallied_from_before_anybody_looks(service):
    tally = LoadTally()
    tally.add("base", 1.5, True)
    service.metrics.watch_models(lambda: tally.figures(1))
    tally.add("broken", 0.25, False)
    assert service.samples("speech_model_loads_total") == {("failed",): 1, ("loaded",): 1}
    assert service.samples("speech_model_load_seconds_total") == {(): 1.75}
    assert service.samples("speech_models_loaded") == {(): 1}


def test_names_types_and_help_are_as_prometheus_wants_them(full):
    """What `promtool check metrics` looks at."""
    text = full.ask("GET", "/metrics").text
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    for family in families:
        assert re.fullmatch("(speech|process)_[a-z_]+", family.name), family.name
        assert family.documentation, family.name
        assert family.samples, family.name
        if not family.name.startswith("speech_"):
            continue
        assert family.documentation.endswith("."), family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not re.search("_(total|count|sum|bucket|info)$", family.name)
        assert not re.search("milliseconds|minutes|hours|percent|counter|gauge|histogram", family.name)
        exposed = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert exposed == {f"{family.name}_total"}
        elif family.type == "gauge":
            assert exposed == {family.name}
        else:
            assert exposed == {f"{family.name}_{part}" for part in ("bucket", "count", "sum")}
        series = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in family.samples]
        assert len(set(series)) == len(series)


def test_text_is_of_the_version_that_every_prometheus_reads(full):
    response = full.ask("GET", "/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.text.endswith("\n")


def test_openmetrics_is_served_to_who_asks_for_it(full):
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    response = full.ask("GET", "/metrics", headers=accept)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert {family.name for family in openmetrics_families(response.text)} >= {"speech_jobs", "speech_errors"}


def test_scrapes_are_not_logged(service, caplog):
    caplog.set_level("INFO", "speech.access")
    service.ask("GET", "/metrics")
    service.ask("POST", "/empty")
    (line,) = caplog.messages
    assert "path=/empty status=400" in line
    assert "error=empty_file" in line


def test_prometheus_client_is_not_imported_on_the_way_to_listening():
    code = "import sys, whisper_server.__main__; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
