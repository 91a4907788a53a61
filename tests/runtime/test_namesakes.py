"""A container of another project that has the name of one of ours is told from ours."""

import pytest

from autostart.runtime.compose.project import read_project
from autostart.runtime.compose.scope import Scope

FILE = "name: mine\nservices: {web: {image: x, container_name: whisper}}\n"


@pytest.mark.parametrize(
    ("container", "of_project", "is_ours"),
    [
        ("whisper", "mine", True),
        ("whisper", "", True),
        ("whisper", "theirs", False),
        ("elsewhere", "theirs", True),
    ],
    ids=["own", "made-by-hand", "namesake", "named-on-purpose"],
)
def test_a_namesake_of_another_project_is_not_ours_unless_only_the_configuration_names_it(
    tmp_path, container, of_project, is_ours
):
    (tmp_path / "compose.yaml").write_text(FILE)
    scope = Scope(("whisper", "elsewhere"))
    assert scope.may_own(read_project(tmp_path), container, of_project) is is_ours
