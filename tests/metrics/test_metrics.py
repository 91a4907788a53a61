"""What Prometheus is told: read with prometheus-client's own parser, counted from a real service's events."""

import asyncio

import pytest
from fakes import Clock, FakeRuntime, busy_answer, service_config
from prometheus_client.parser import text_string_to_metric_families
from waiting import until

from autostart import errors
from autostart.lifecycle import Service, State, events
from autostart.lifecycle.events import StopReason
from autostart.metrics import Metrics
from autostart.metrics.exposition import label
from autostart.proxy.events import RequestEnded, WebSocketOpened

HOST = "whisper.test"


class Scraped:
    """Parsed metrics: `scraped("starts_total", result="failed")` is a value, None where there is no such series."""

    def __init__(self, text: bytes) -> None:
        self.samples = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in self.samples, f"{key} stands twice"
                self.samples[key] = sample.value

    def __call__(self, name, *, service=HOST, **labels):
        if service is not None:
            labels["service"] = service
        return self.samples.get((f"autostart_{name}", frozenset(labels.items())))

    def services(self):
        return {dict(labels)["service"] for _, labels in self.samples if "service" in dict(labels)}


class Bench:
    """A service on a fake runtime whose events are counted."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wall = lambda: self.clock.now + 1e9
        self.services: dict[str, Service] = {}
        self.metrics = Metrics(self.services.values, clock=self.clock, wall=self.wall)
        self.runtime = FakeRuntime()
        self.service = self.add(HOST, self.runtime)

    def add(self, host, runtime=None, **options):
        service = self.services[host] = Service(
            host,
            service_config(**options),
            runtime or FakeRuntime(),
            emit=self.metrics.on_lifecycle,
            clock=self.clock,
            wall=self.wall,
        )
        return service

    def scrape(self):
        return Scraped(self.metrics.render())


def with_bench(test):
    async def body() -> None:
        bench = Bench()
        try:
            async with asyncio.timeout(20):
                await test(bench)
        finally:
            for service in {bench.service, *bench.services.values()}:
                await service.close()

    asyncio.run(body())


def ended(**facts):
    told = {
        "service": HOST,
        "request_id": "r1",
        "method": "POST",
        "path": "/v1/audio/transcriptions",
        "status": 200,
        "code": "",
        "duration_s": 0.2,
        "waited_s": 0.0,
        "bytes_in": 1000,
        "bytes_out": 50,
        "websocket": False,
        "client": "127.0.0.1",
        "identity": "alice",
        "failed_auth": False,
    }
    return RequestEnded(**(told | facts))


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("requests_total", {"status": "200", "code": ""}),
        ("starts_total", {"result": "failed"}),
        ("stops_total", {"reason": "crashed"}),
        ("stop_failures_total", {}),
        ("request_bytes_total", {"direction": "in"}),
        ("auth_failures_total", {}),
        ("requests_cut_total", {}),
        ("runtime_errors_total", {"operation": "observe"}),
        ("runtime_errors_total", {"operation": "busy_check"}),
        ("busy", {}),
        ("websockets_open", {}),
        ("requests_in_flight", {}),
        ("requests_waiting", {}),
        ("last_request_timestamp_seconds", {}),
        ("idle_stop_timestamp_seconds", {}),
    ],
)
def test_series_of_a_service_nobody_used_exist_as_zero(name, labels):
    async def test(bench):
        assert bench.scrape()(name, **labels) == 0

    with_bench(test)


def test_state_is_one_for_the_state_it_is_in_and_zero_for_the_others():
    async def test(bench):
        await bench.service.start("test")
        scraped = bench.scrape()
        assert {state: scraped("service_state", state=state) for state in State} == {
            State.STOPPED: 0,
            State.STARTING: 0,
            State.READY: 1,
            State.STOPPING: 0,
            State.FAILED: 0,
        }

    with_bench(test)


def test_waiting_and_forwarded_requests_are_told_apart():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        used = asyncio.Event()

        async def use():
            async with bench.service.lease("test"):
                await used.wait()

        tasks = [asyncio.create_task(use()) for _ in range(3)]
        await until(lambda: len(bench.service.snapshot().leases) == 3)
        assert (bench.scrape()("requests_waiting"), bench.scrape()("requests_in_flight")) == (3, 0)
        bench.runtime.start_gate.set()
        await until(lambda: bench.service.snapshot().in_flight == 3)
        assert (bench.scrape()("requests_waiting"), bench.scrape()("requests_in_flight")) == (0, 3)
        used.set()
        await asyncio.gather(*tasks)

    with_bench(test)


def test_series_of_a_service_go_when_it_leaves_the_configuration():
    async def test(bench):
        gone = bench.add("gone.test")
        await gone.start("test")
        assert bench.scrape().services() == {HOST, "gone.test"}
        del bench.services["gone.test"]
        await gone.stop()  # its last events must not bring it back
        assert bench.scrape().services() == {HOST}
        await gone.close()

    with_bench(test)


def test_service_that_comes_back_counts_from_zero():
    async def test(bench):
        await bench.service.start("test")
        service = bench.services.pop(HOST)
        bench.scrape()
        bench.services[HOST] = service
        assert bench.scrape()("starts_total", result="succeeded") == 0

    with_bench(test)


def test_start_is_counted_with_its_phases():
    async def test(bench):
        phases = events.Phases(runtime_s=0.2, ready_s=3.0)
        bench.metrics.on_lifecycle(events.StartSucceeded(HOST, "test", False, phases, 1))
        scraped = bench.scrape()
        assert scraped("starts_total", result="succeeded") == 1
        assert scraped("start_duration_seconds_sum", phase="runtime") == pytest.approx(0.2)
        assert scraped("start_duration_seconds_sum", phase="ready") == pytest.approx(3.0)
        assert scraped("start_duration_seconds_sum", phase="total") == pytest.approx(3.2)
        assert scraped("start_duration_seconds_bucket", phase="ready", le="2.5") == 0
        assert scraped("start_duration_seconds_bucket", phase="ready", le="5.0") == 1
        assert scraped("start_duration_seconds_bucket", phase="ready", le="+Inf") == 1

    with_bench(test)


def test_adopted_service_is_no_start_that_took_time():
    async def test(bench):
        await bench.runtime.run()
        await until(lambda: bench.service.state is State.READY)
        scraped = bench.scrape()
        assert scraped("starts_total", result="adopted") == 1
        assert scraped("starts_total", result="succeeded") == 0
        assert scraped("start_duration_seconds_count", phase="total") is None

    with_bench(test)


def test_failed_start_is_counted_with_its_cause():
    async def test(bench):
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        with pytest.raises(errors.StartFailed):
            await bench.service.start("test")
        scraped = bench.scrape()
        assert scraped("starts_total", result="failed") == 1
        assert scraped("start_failures_total", cause="image_missing") == 1
        assert scraped("start_hold_off_seconds") > 0

    with_bench(test)


def test_start_ended_by_hand_is_neither_succeeded_nor_failed():
    async def test(bench):
        bench.runtime.start_gate = asyncio.Event()
        bench.service.wake("test")
        await bench.service.stop(force=True)
        scraped = bench.scrape()
        assert scraped("starts_total", result="stopped") == 1
        assert scraped("starts_total", result="succeeded") == scraped("starts_total", result="failed") == 0

    with_bench(test)


def test_stops_are_counted_by_reason():
    async def test(bench):
        await bench.service.start("test")
        await bench.service.stop()
        await bench.service.start("test")
        bench.clock.move(10_000)
        assert bench.service.stop_if_idle()
        await until(lambda: bench.service.state is State.STOPPED)
        await bench.service.start("test")
        bench.runtime.die(exit_code=1)
        scraped = bench.scrape()
        assert {reason: scraped("stops_total", reason=reason) for reason in StopReason} == {
            StopReason.IDLE: 1,
            StopReason.MANUAL: 1,
            StopReason.CRASHED: 1,
            StopReason.EXTERNAL: 0,
        }

    with_bench(test)


def test_failed_stop_is_counted_as_an_error_of_the_runtime():
    async def test(bench):
        await bench.service.start("test")
        bench.runtime.stop_failure = errors.StopFailed("it would not go")
        with pytest.raises(errors.StopFailed):
            await bench.service.stop()
        scraped = bench.scrape()
        assert scraped("stop_failures_total") == 1
        assert scraped("runtime_errors_total", operation="stop") == 1
        bench.runtime.stop_failure = None

    with_bench(test)


def test_work_of_its_own_and_not_knowing_of_it_are_told_and_the_failure_is_counted():
    async def test(bench):
        service, runtime = bench.service, bench.runtime
        config = service.config.model_copy(update={"busy_path": "/busy"})
        service.reconfigure(config)
        await service.start("test")

        async def asked(answer: bytes) -> float:
            runtime.answer = answer
            before = service.snapshot().own_work
            bench.clock.move(15)
            service.stop_if_idle()
            await until(lambda: service.snapshot().own_work is not before)
            return bench.scrape()("busy")

        assert await asked(busy_answer(True)) == 1
        assert await asked(busy_answer(False)) == 0
        assert await asked(b"HTTP/1.1 404 Not Found\r\n\r\n") == 1
        assert bench.scrape()("runtime_errors_total", operation="busy_check") == 1

    with_bench(test)


def test_requests_that_a_crash_cut_are_counted():
    async def test(bench):
        async with bench.service.lease("test"):
            bench.runtime.die(exit_code=1)
            assert bench.scrape()("requests_cut_total") == 1

    with_bench(test)


def test_time_awake_and_time_asleep_add_up():
    async def test(bench):
        bench.clock.move(100)  # asleep, before anybody scraped
        assert bench.scrape()("asleep_seconds_total") == 100
        await bench.service.start("test")
        bench.clock.move(30)
        await bench.service.stop()
        bench.clock.move(7)
        scraped = bench.scrape()
        assert scraped("running_seconds_total") == 30
        assert scraped("asleep_seconds_total") == 107

    with_bench(test)


def test_time_of_a_failed_service_counts_neither_as_running_nor_as_asleep():
    async def test(bench):
        bench.runtime.start_failure = errors.ImageMissing("whisper:1")
        with pytest.raises(errors.StartFailed):
            await bench.service.start("test")
        bench.clock.move(50)
        scraped = bench.scrape()
        assert (scraped("running_seconds_total"), scraped("asleep_seconds_total")) == (0, 0)

    with_bench(test)


def test_idle_stop_time_is_told_only_while_nobody_uses_it():
    async def test(bench):
        async with bench.service.lease("test"):
            assert bench.scrape()("idle_stop_timestamp_seconds") == 0
        assert bench.scrape()("idle_stop_timestamp_seconds") == bench.wall() + 900
        assert bench.scrape()("last_request_timestamp_seconds") == bench.wall()

    with_bench(test)


def test_requests_are_counted_by_status_and_code():
    async def test(bench):
        bench.metrics.on_request(ended())
        bench.metrics.on_request(ended())
        bench.metrics.on_request(ended(status=503, code="start_failed", waited_s=4.0))
        scraped = bench.scrape()
        assert scraped("requests_total", status="200", code="") == 2
        assert scraped("requests_total", status="503", code="start_failed") == 1
        assert scraped("request_bytes_total", direction="in") == 3000
        assert scraped("request_bytes_total", direction="out") == 150
        assert scraped("request_duration_seconds_count") == 3
        assert scraped("request_wait_seconds_count") == 1

    with_bench(test)


def test_request_for_an_unknown_host_is_counted_without_its_name():
    async def test(bench):
        bench.metrics.on_request(ended(service=None, status=404, code="unknown_host"))
        scraped = bench.scrape()
        assert scraped("requests_total", service="", status="404", code="unknown_host") == 1
        assert scraped.services() == {HOST, ""}

    with_bench(test)


def test_websockets_are_open_until_they_end():
    async def test(bench):
        bench.metrics.on_request(WebSocketOpened(HOST, "r1"))
        bench.metrics.on_request(WebSocketOpened(HOST, "r2"))
        bench.metrics.on_request(ended(websocket=True, status=101, duration_s=4000.0))
        scraped = bench.scrape()
        assert scraped("websockets_open") == 1
        assert scraped("request_duration_seconds_count") is None

    with_bench(test)


def test_websocket_that_outlives_its_service_leaves_no_negative_count():
    async def test(bench):
        bench.metrics.on_request(WebSocketOpened(HOST, "r1"))
        service = bench.services.pop(HOST)
        bench.scrape()
        bench.metrics.on_request(ended(websocket=True, status=101))
        bench.services[HOST] = service
        assert bench.scrape()("websockets_open") == 0

    with_bench(test)


def test_wrong_credentials_are_counted():
    async def test(bench):
        bench.metrics.on_request(ended(status=401, code="unauthorized", failed_auth=True, identity=None))
        assert bench.scrape()("auth_failures_total") == 1

    with_bench(test)


def test_refused_reload_shows_until_a_good_one():
    async def test(bench):
        assert bench.scrape()("config_last_reload_successful", service=None) == 1
        bench.metrics.on_reload(ok=False)
        assert bench.scrape()("config_last_reload_successful", service=None) == 0
        bench.clock.move(60)
        bench.metrics.on_reload(ok=True)
        scraped = bench.scrape()
        assert scraped("config_last_reload_successful", service=None) == 1
        assert scraped("config_last_reload_success_timestamp_seconds", service=None) == bench.wall()
        assert scraped("config_reloads_total", service=None, result="ok") == 1
        assert scraped("config_reloads_total", service=None, result="failed") == 1

    with_bench(test)


def test_reconnects_of_the_event_stream_are_those_that_it_counts_itself():
    metrics = Metrics(list, reconnects=lambda: 3)
    assert Scraped(metrics.render())("event_stream_reconnects_total", service=None) == 3


def test_process_itself_is_measured():
    async def test(bench):
        assert bench.scrape().samples["process_resident_memory_bytes", frozenset()] > 0

    with_bench(test)


def test_service_that_nobody_used_costs_few_series():
    async def test(bench):
        before = len(bench.scrape().samples)
        bench.add("second.test")
        assert len(bench.scrape().samples) - before <= 35

    with_bench(test)


@pytest.mark.parametrize("value", ['quo"te', "back\\slash", "new\nline", "\\n", "plain"])
def test_label_values_survive_the_way_to_prometheus(value):
    text = f"x{{{label('l', value)}}} 1\n"
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == {"l": value}
