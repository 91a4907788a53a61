"""Many clients at once, and many requests one after the other: who is answered, and whether memory grows."""

import concurrent.futures
from collections import Counter

import httpx

from bench.recordings import EXAMPLES
from bench.stand import Failed, Stand
from bench.table import Row
from bench.whisper import PATH, Server, models

TITLE = "Speech server: 50 clients at once, then 500 requests (whisper-tiny)"

_CLIENTS, _REQUESTS = 50, 500
_GROWTH_KB = 10.0
_RECORDING = EXAMPLES / "austen-0880.wav"


def measure(clients: int = _CLIENTS, requests: int = _REQUESTS) -> list[Row]:
    """Return the rows. Raises Missing without a model."""
    with Stand() as stand:
        server = Server(stand, models(stand, ["tiny"])["tiny"])
        server.wait_until_ready()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            found = Counter(pool.map(lambda _: _ask(server), range(clients)))
        rows = [
            Row("answered", found[200], f"of {clients}", note=f"refused as queue_full: {found[503]}"),
        ]
        memory_kb = []
        for number in range(requests):
            if _ask(server) != 200:
                raise Failed("a request was not answered")
            if number >= requests // 5:
                memory_kb.append(server.process.rss_bytes / 1e3)
        slope_kb = _slope(memory_kb)
        note = f"{memory_kb[0] / 1e3:.0f} MB after a fifth of them, {memory_kb[-1] / 1e3:.0f} MB after all"
        rows.append(Row("memory: growth a request", max(0.0, slope_kb), "kB", _GROWTH_KB, note))
        server.process.end()
    return rows


def _ask(server: Server) -> int:
    with _RECORDING.open("rb") as file:
        answer = httpx.post(server.url + PATH, files={"file": file}, timeout=600)
    if answer.status_code == 503:
        if answer.json()["error"]["code"] != "queue_full" or "retry-after" not in answer.headers:
            raise Failed(f"a refusal that is none: {answer.text}")
    elif answer.status_code != 200:
        raise Failed(f"{answer.status_code}: {answer.text}")
    return answer.status_code


def _slope(values: list[float]) -> float:
    """Return the growth from one value to the next (least squares)."""
    count = len(values)
    middle, mean = (count - 1) / 2, sum(values) / count
    above = sum((at - middle) * (value - mean) for at, value in enumerate(values))
    return above / sum((at - middle) ** 2 for at in range(count))
