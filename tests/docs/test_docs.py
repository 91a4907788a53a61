"""What people can use or meet is in the docs, and the docs lead nowhere else."""

import argparse
import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autostart.cli.main import parser
from autostart.config import parse
from autostart.config.explain import options
from autostart.config.reference import sections
from autostart.errors import FailureCause
from autostart.lifecycle import State
from autostart.metrics import METRICS
from autostart.proxy import exchange
from autostart.proxy.reference import CAUSES, DOCS, ERRORS, reference
from autostart.proxy.replies import TABLE, Row

ROOT = Path(__file__).parents[2]
HIDDEN = {".git", ".venv", ".hypothesis", ".cache", ".pytest_cache", ".mypy_cache", ".ruff_cache"}
PAGES = sorted(path for path in ROOT.rglob("*.md") if not HIDDEN & set(path.relative_to(ROOT).parts))


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return action.choices


# --- errors --------------------------------------------------------------------------------------------


def test_page_about_errors_is_the_one_that_the_code_makes() -> None:
    assert page("errors.md") == reference(), "run: python -m autostart.proxy.reference"


def test_every_error_and_every_cause_has_its_sentences() -> None:
    assert ERRORS.keys() == TABLE.keys()
    assert CAUSES.keys() == set(FailureCause)


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: row.code)
def test_every_error_code_is_on_the_page(row: Row) -> None:
    assert f"| {row.status} | `{row.code}` | `{row.kind}` |" in page("errors.md")


@pytest.mark.parametrize("cause", FailureCause)
def test_every_failure_cause_is_on_the_page(cause: FailureCause) -> None:
    assert f"| `{cause}` |" in page("errors.md")


@pytest.mark.parametrize("code", [exchange.CLIENT_GONE, exchange.ANSWER_CUT])
def test_codes_that_nobody_is_told_are_on_the_page(code: str) -> None:
    assert f"| `{code}` |" in page("errors.md")


# --- the rest that has a name --------------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(subcommands()))
def test_every_command_is_in_the_readme(command: str) -> None:
    # Their options: tests/cli/test_commands_page.py.
    assert re.search(rf"`(autostart )?{command}\b", (ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("model", "key"), [(m, key) for m, _ in sections() for key in options(m)])
def test_every_option_of_the_configuration_is_in_the_docs(model: type, key: str) -> None:
    _, _, section = page("configuration.md").partition(f'<a id="{model.__name__}"></a>')
    assert f"| `{key}` |" in section.partition("<a id=")[0]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_in_the_docs(metric) -> None:
    assert f"| `autostart_{metric.name}` |" in page("metrics.md")


def test_every_state_is_in_the_table_of_states() -> None:
    for state in State:
        assert f"\n| {state} | " in page("architecture.md")


# --- what is written is true ---------------------------------------------------------------------------


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for path in PAGES:
        fence = rf"^( *)```{language}\n(.*?)^\1```"
        for indent, text in re.findall(fence, path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            yield path.name, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)


def test_examples_in_python_are_python() -> None:
    found = list(blocks("python"))
    assert found
    for name, text in found:
        ast.parse(text, filename=name)


def test_configurations_in_the_docs_are_accepted() -> None:
    found = [(name, text) for name, text in blocks("json") if '"services"' in text]
    assert found
    for name, text in found:
        assert parse(json.dumps(json.loads(text)), ROOT / "docs" / name).services


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
REMOTE = re.compile(r"[a-z]+:")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if REMOTE.match(link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), f"{link}: no such file"
        assert not anchor or anchor in _anchors(target.read_text(encoding="utf-8")), f"{link}: no such place"


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


# --- what no file may name -----------------------------------------------------------------------------

# In pieces, for this file is looked at too. Docker's registry has the slash, because Debian's package has its name.
_HOSTS = [
    ("deb", "debian", "org"),
    ("security", "debian", "org"),
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("registry", "npmjs", "org"),
    ("proxy", "golang", "org"),
    ("sum", "golang", "org"),
    ("registry-1", "docker", "io"),
    ("docker", "io/"),
    ("ghcr", "io"),
    ("quay", "io"),
]
FORBIDDEN = re.compile(
    "|".join(re.escape(".".join(parts)) for parts in _HOSTS) + r"|(?<![\w.$}*-])/(?:work|root)/[\w.]"
)


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: which files are the repository's is not known")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    offenders = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if found := FORBIDDEN.search(line):
                offenders.append(f"{name}:{number}: {found[0]}")
    assert not offenders, "\n".join(offenders)
