"""What people can set, meet or watch of the speech service is in its docs, and nothing else is."""

import re
from pathlib import Path

import pytest
import whisper_server.settings
import whisperx_server.settings
from speech_common.errors import SpeechError
from speech_common.loads import ModelFigures
from speech_common.metrics import Metrics
from speech_common.replies import REPLIES
from speech_common.settings import ServerSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "speech.md").read_text()
SERVICES = {"faster-whisper": whisper_server.settings.Settings, "whisperx": whisperx_server.settings.Settings}
# Of the framework and of the wire: no class of ours has them.
OTHER_CODES = {
    (404, "not_found"),
    (405, "method_not_allowed"),
    (400, "malformed_request"),
    (400, "cors_refused"),
}


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading."""
    section = re.split(r"^## ", page.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 2, heading
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_error_code_is_on_the_page() -> None:
    told = [(int(status), code) for status, code, _ in rows(PAGE, "Errors")]
    assert sorted(told) == sorted({(row.status, row.code) for row in REPLIES.values()} | OTHER_CODES)


def test_every_error_has_its_own_answer() -> None:
    leaves = [cls for cls in kinds(SpeechError) if not cls.__subclasses__()]
    assert [cls.__name__ for cls in leaves if cls not in REPLIES] == []


def kinds(cls: type[SpeechError]) -> list[type[SpeechError]]:
    return [found for child in cls.__subclasses__() for found in (child, *kinds(child))]


def test_every_metric_is_on_the_page() -> None:
    metrics = Metrics()
    metrics.watch_jobs(Looked())
    metrics.watch_models(lambda: ModelFigures(loaded=1, loads={"ok": 1}, load_s=1.0))
    described = {}
    for family in metrics._registry.collect():
        if family.name.startswith("speech_"):
            described[family.name + ("_total" if family.type == "counter" else "")] = family.documentation
    assert sorted(name for name, *_ in rows(PAGE, "Metrics")) == sorted(described)


class Looked:
    waiting = running = 1
    speed = 1.0


class Read(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]
        self.names.add(name)
        return default


def readme_of(service: str) -> str:
    return (ROOT / "services" / service / "README.md").read_text()


@pytest.mark.parametrize(("service", "settings"), SERVICES.items())
def test_every_setting_is_in_the_readme(service: str, settings: type[ServerSettings]) -> None:
    environment = Read()
    settings.from_environment(environment)
    section = re.split(r"^## ", readme_of(service).partition("## Settings\n")[2], flags=re.MULTILINE)[0]
    told = set(re.findall(r"`([A-Z_]{4,})`", section)) - {"DEBUG", "INFO"}
    assert told == environment.names


@pytest.mark.parametrize("path", ["/health/busy", "/metrics", "/transcribe", "/v1/audio/detect-language"])
@pytest.mark.parametrize("service", SERVICES)
def test_paths_are_in_the_readme(service: str, path: str) -> None:
    assert f"{path}`" in readme_of(service)
