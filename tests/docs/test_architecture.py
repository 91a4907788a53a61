"""The arrows of docs/architecture.md, held against the imports of every module."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "autostart"

MAY_IMPORT = {
    "errors": set(),
    "words": set(),
    "version": set(),
    "notify": set(),
    "sink": set(),
    "sites": set(),
    "threads": {"errors"},
    "config": {"errors"},
    "htpasswd": {"errors"},
    "auth": {"config", "errors", "htpasswd"},
    "nginx": {"config"},
    "runtime": {"config", "errors", "threads"},
    "lifecycle": {"config", "errors", "runtime", "threads"},
    "proxy": {"auth", "config", "errors", "lifecycle", "runtime"},
    "metrics": {"errors", "lifecycle", "proxy", "version"},
    "log": {"errors", "lifecycle", "proxy", "runtime", "sink", "words"},
    "admin": {"config", "errors", "lifecycle", "log", "metrics", "proxy", "sites", "version", "words"},
    "check": {"config", "errors", "htpasswd", "runtime"},
    "cli": {"admin", "auth", "check", "config", "errors", "nginx", "program", "version", "words"},
    "program": {"app", "config", "errors", "log"},
    "__main__": {"cli"},
    "app": {
        *("admin", "auth", "config", "errors", "lifecycle", "log", "metrics", "notify", "proxy", "runtime"),
        *("sites", "version", "words"),
    },
}
"""Areas (the second part of a module's name) and what of ours each may know."""

ONLY_DOOR = {
    ("lifecycle", "runtime"): {"autostart.runtime.base"},
    ("proxy", "runtime"): {"autostart.runtime.base"},
    ("log", "runtime"): {"autostart.runtime.base"},
    ("metrics", "proxy"): {"autostart.proxy.events"},
    ("log", "proxy"): {"autostart.proxy.events"},
    ("admin", "proxy"): {"autostart.proxy.replies"},
    ("cli", "admin"): {"autostart.admin.client"},
}
"""Where an area may know only some modules of another."""

LIBRARIES = {
    "docker": {"autostart.runtime.compose"},
    "requests": {"autostart.runtime.compose"},
    "aiohttp": {"autostart.proxy", "autostart.admin", "autostart.app", "autostart.sites"},
    "prometheus_client": {"autostart.metrics"},
    "pydantic": {"autostart.config"},
    "passlib": {"autostart.htpasswd"},
    "uvloop": {"autostart.program"},
}
"""Libraries, and the only packages or modules that know them."""

MOST_LINES = 320
LONGER = {
    "autostart/lifecycle/service.py": "one state machine: its decisions have to be read together",
}


def modules() -> dict[str, Path]:
    names = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Yield what a module imports, inside functions too: ours as modules, the rest as top-level names."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=aliases):
                found = [alias.name for alias in aliases]
            case ast.ImportFrom(module=module, names=aliases, level=level):
                base = ".".join(package.split(".")[: len(package.split(".")) - level + 1]) if level else ""
                origin = ".".join(filter(None, (base, module)))
                found = [f"{origin}.{alias.name}" for alias in aliases]
            case ast.Constant(value=str(text)) if text.startswith("autostart.") and ":" in text:
                found = [text.partition(":")[0]]  # "module:function", loaded by name
            case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(value=str(text)), *_]):
                found = [text]
            case _:
                continue
        for imported in found:
            yield _module_of(imported)


def _module_of(imported: str) -> str:
    top = imported.partition(".")[0]
    if top != "autostart":
        return top
    while imported not in MODULES:
        imported = imported.rpartition(".")[0]
    return imported


def area(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


OURS = sorted(name for name in MODULES if area(name))


@pytest.mark.parametrize("name", OURS)
def test_imports_follow_the_arrows(name: str) -> None:
    assert area(name) in MAY_IMPORT, f"say in MAY_IMPORT where {area(name)} stands"
    known = {imported for imported in imports(name) if area(imported) not in {"", area(name)}}
    for imported in known:
        assert area(imported) in MAY_IMPORT[area(name)], f"{name} imports {imported}"
        door = ONLY_DOOR.get((area(name), area(imported)))
        assert door is None or imported in door, f"{name} imports {imported}, and may know {door} only"


@pytest.mark.parametrize("name", OURS)
def test_libraries_stay_where_they_belong(name: str) -> None:
    for library in LIBRARIES.keys() & set(imports(name)):
        homes = LIBRARIES[library]
        assert any(name == home or name.startswith(f"{home}.") for home in homes), f"{name} imports {library}"


def test_nobody_imports_app_but_the_program_and_only_the_command_that_serves_runs_that() -> None:
    assert {name for name in OURS if "autostart.app" in imports(name)} == {"autostart.program"}
    assert {name for name in OURS if "autostart.program" in imports(name)} == {"autostart.cli.serve"}


def test_metrics_are_known_to_app_and_to_what_serves_them_only() -> None:
    knowing = {area(name) for name in OURS for imported in imports(name) if area(imported) == "metrics"}
    assert knowing - {"metrics"} == {"app", "admin"}


def test_arrows_make_no_circle() -> None:
    left = {name: set(known) for name, known in MAY_IMPORT.items()}
    while free := {name for name, known in left.items() if not known & left.keys()}:
        left = {name: known for name, known in left.items() if name not in free}
    assert not left


@pytest.mark.parametrize(
    ("package", "absent"),
    [
        ("autostart.errors", {"autostart.config", "aiohttp", "docker", "pydantic", "asyncio"}),
        ("autostart.config", {"aiohttp", "docker", "asyncio"}),
        ("autostart.lifecycle", {"aiohttp", "docker"}),
        ("autostart.runtime.process", {"aiohttp", "docker", "autostart.lifecycle", "autostart.proxy"}),
        ("autostart.runtime.compose", {"aiohttp", "autostart.lifecycle", "autostart.proxy"}),
        ("autostart.proxy", {"docker", "autostart.runtime.compose", "autostart.runtime.process"}),
    ],
)
def test_loading_a_package_does_not_load(package: str, absent: set[str]) -> None:
    program = f"import sys, {package}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not absent & set(loaded.stdout.split())


def test_no_module_is_longer_than_a_head_holds() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in ("autostart", "services", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert long.keys() <= LONGER.keys(), f"over {MOST_LINES} lines without a reason in LONGER: {long}"
    assert LONGER.keys() <= long.keys(), "LONGER names files that are short enough by now"
