"""Which services of a project wait for which. Pure; imports nothing of Docker."""

from collections.abc import Collection, Iterator

from autostart.errors import ComposeFileInvalid
from autostart.runtime.compose.project import Project


def start_order(project: Project, services: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Yield `services` in groups: each group depends only on those before it. Backwards, it is the stop order.

    Dependencies that are not among `services` are not waited for. Raises ComposeFileInvalid for a circle.
    """
    left = {name: set(project.services[name].dependencies).intersection(services) for name in services}
    while left:
        group = tuple(name for name, waits_for in left.items() if not waits_for)
        if not group:
            raise ComposeFileInvalid(
                project.files[0], f"these services wait for each other: {', '.join(sorted(left))}"
            )
        yield group
        for name in group:
            del left[name]
        for waits_for in left.values():
            waits_for.difference_update(group)


def with_dependencies(project: Project, services: Collection[str]) -> set[str]:
    """Return `services` and everything that they wait for, however indirectly."""
    found: set[str] = set()
    unseen = list(services)
    while unseen:
        name = unseen.pop()
        if name not in found and name in project.services:
            found.add(name)
            unseen += project.services[name].dependencies
    return found
