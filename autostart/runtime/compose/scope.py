"""Which of a project's containers are meant: those that must run, those to start, those to stop. Pure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from autostart.runtime.compose.containers import Container
from autostart.runtime.compose.order import with_dependencies
from autostart.runtime.compose.project import Project


@dataclass(frozen=True, slots=True)
class Scope:
    """What one runtime looks after.

    | `names`, `is_alone()` | must run                 | started                      | stopped       |
    |-----------------------|--------------------------|------------------------------|---------------|
    | none                  | all but one-shots        | all                          | all           |
    | some, alone           | those                    | all                          | all           |
    | some, not alone       | those                    | those and what they wait for | those         |

    `names` are of containers or of services in the compose file. "All" leaves out profiles that are not active.
    Whether it is alone with the project is asked each time: somebody else may come, or go.
    """

    names: tuple[str, ...] = ()
    is_alone: Callable[[], bool] = lambda: True

    def needed_services(self, project: Project) -> list[str]:
        """Return the services whose containers must run."""
        if self.names:
            return [service for name in self.names if (service := project.service_of(name)) is not None]
        return [name for name in _enabled(project) if name not in project.one_shots]

    def foreign_names(self, project: Project) -> list[str]:
        """Return those of `names` that the compose file does not know."""
        return [name for name in self.names if project.service_of(name) is None]

    def must_run(self, project: Project | None, container: str, service: str) -> bool:
        """Say whether a container with these names must run; a guess while no `project` was read."""
        if project is None:
            return not self.names or container in self.names or service in self.names
        return container in self.foreign_names(project) or service in self.needed_services(project)

    def may_own(self, project: Project | None, container: str, of_project: str) -> bool:
        """Say whether a container of the compose project `of_project` (empty: of none) is not merely a namesake."""
        return project is None or of_project in {"", project.name} or container in self.foreign_names(project)

    def services_to_start(self, project: Project) -> set[str]:
        """Return the services that a start begins, dependencies included."""
        named = with_dependencies(project, self.needed_services(project))
        return named if self.names and not self.is_alone() else named | set(_enabled(project))

    def needed(self, project: Project, containers: Sequence[Container]) -> list[Container] | None:
        """Return the containers that must run; None where one of them does not exist, or none is known."""
        found: list[Container] = []
        for service in self.needed_services(project):
            mine = [container for container in containers if container.service == service]
            if not mine:
                return None
            found += mine
        for name in self.foreign_names(project):
            mine = [container for container in containers if container.answers_to(name)]
            if not mine:
                return None
            found += mine
        return found or None

    def to_stop(self, project: Project, containers: Iterable[Container]) -> list[Container]:
        """Return the containers that a stop ends."""
        if self.is_alone() or not self.names:
            return list(containers)
        services = set(self.needed_services(project))
        return [
            c for c in containers if c.service in services or any(c.answers_to(name) for name in self.names)
        ]

    def remains(self, project: Project, containers: Iterable[Container]) -> list[Container]:
        """Return what still runs of what a stop ends; nothing where another runtime may want it up."""
        if not self.names and not self.is_alone():
            return []
        return [container for container in self.to_stop(project, containers) if container.is_running]


def _enabled(project: Project) -> list[str]:
    return [service.name for service in project.services.values() if service.is_enabled]
