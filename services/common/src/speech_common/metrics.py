"""What Prometheus may ask: `speech_*`, counted here or looked at when it asks.

Owns names, labels and their bounds: routes are the declared ones or `other`, statuses HTTP's, codes those of
`replies.py`, so no caller can make a new series. Importing prometheus_client takes 13 ms beside the web framework (of
which 9 ms are its own HTTP server's), so nothing on the way to listening may import this module.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from fastapi import FastAPI, Request, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from speech_common.access import RequestFacts
from speech_common.loads import ModelFigures
from speech_common.replies import NO_STORE

_REQUEST_BUCKETS = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600)
_WAIT_BUCKETS = (0.01, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


class JobFigures(Protocol):
    """What is looked at of the queue, on the event loop: `speech_common.jobs.Jobs` has it."""

    @property
    def waiting(self) -> int: ...  # noqa: D102 -- as there

    @property
    def running(self) -> int: ...  # noqa: D102 -- as there

    @property
    def speed(self) -> float | None: ...  # noqa: D102 -- as there


class EndedJob(Protocol):
    """What is counted of a job that ended: `speech_common.jobs.Job` has it. `_s` of the clock since 1970."""

    created_s: float
    started_s: float | None
    ended_s: float | None
    heard_s: float
    is_counted: bool

    @property
    def state(self) -> str: ...  # noqa: D102 -- as there


class Metrics:
    """The metrics of one process, in a registry of their own. To be used on the event loop."""

    def __init__(self) -> None:
        # A series more for each, and Prometheus knows when it first saw one.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "speech_http_requests",
            "Requests answered; 499 is a client that left.",
            ["route", "status"],
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "speech_http_request_duration_seconds",
            "From a request's headers to the end of its answer, waiting included.",
            ["route"],
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._errors = Counter(
            "speech_errors",
            "Requests refused or failed, by the error's code.",
            ["code"],
            registry=self._registry,
        )
        self._jobs = Counter(
            "speech_jobs", "Recordings done with, by how that ended.", ["state"], registry=self._registry
        )
        self._audio = Counter(
            "speech_audio_seconds", "Seconds of audio that were transcribed.", registry=self._registry
        )
        self._processing = Counter(
            "speech_processing_seconds", "Seconds that workers spent transcribing.", registry=self._registry
        )
        self._wait = Histogram(
            "speech_job_wait_seconds",
            "From the acceptance of a recording until a worker took it.",
            buckets=_WAIT_BUCKETS,
            registry=self._registry,
        )

    def request_ended(self, facts: RequestFacts) -> None:
        """Count an answered request."""
        self._requests.labels(facts.route, str(facts.status)).inc()
        self._request_seconds.labels(facts.route).observe(facts.duration_s)
        if facts.error_code is not None:
            self._errors.labels(facts.error_code).inc()

    def job_ended(self, job: EndedJob) -> None:
        """Count a job: the time it waited and took, and what was heard of it, however it ended.

        What is no transcription is not in the seconds, whose ratio is the speed.
        """
        self._jobs.labels(str(job.state)).inc()
        if job.started_s is not None and job.ended_s is not None:
            # A clock that was set back in between is no reason to fail.
            self._wait.observe(max(0.0, job.started_s - job.created_s))
            if job.is_counted:
                self._processing.inc(max(0.0, job.ended_s - job.started_s))
                self._audio.inc(job.heard_s)

    def watch_jobs(self, jobs: JobFigures) -> None:
        """Show the queue as it is at each scrape. To be called once."""
        self._registry.register(_Looked(lambda: _of_jobs(jobs)))

    def watch_models(self, look: Callable[[], ModelFigures]) -> None:
        """Show the models as they are at each scrape. To be called once."""
        self._registry.register(_Looked(lambda: _of_models(look())))

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the body and content type that a scraper with this `Accept` reads."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def install_metrics(app: FastAPI, metrics: Metrics) -> None:
    """Add `GET /metrics`."""

    async def scrape(request: Request) -> Response:
        body, content_type = metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, **NO_STORE})

    app.add_api_route(
        "/metrics",
        scrape,
        summary="Counts and times for Prometheus",
        tags=["health"],
        response_model=None,
        operation_id="metrics",
    )


class _Looked(Collector):
    def __init__(self, look: Callable[[], Iterator[Metric]]) -> None:
        self._look = look

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not look yet."""
        return []

    def collect(self) -> Iterator[Metric]:
        return self._look()


def _of_jobs(jobs: JobFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily("speech_jobs_waiting", "Recordings that wait for a worker.", jobs.waiting)
    yield GaugeMetricFamily("speech_jobs_running", "Workers that are taken.", jobs.running)
    if jobs.speed is not None:
        yield GaugeMetricFamily(
            "speech_speed_ratio", "Seconds of audio that a worker does in a second, lately.", jobs.speed
        )


def _of_models(models: ModelFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily("speech_models_loaded", "Models in memory.", models.loaded)
    loads = CounterMetricFamily("speech_model_loads", "Loads of models, by outcome.", labels=["outcome"])
    for outcome, count in sorted(models.loads.items()):
        loads.add_metric([outcome], count)
    yield loads
    yield CounterMetricFamily("speech_model_load_seconds", "Seconds spent loading models.", models.load_s)
