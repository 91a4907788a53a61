"""Reading the kernel's own count of out-of-memory kills."""

from autostart.runtime.oom import oom_kill_count


def laid_out(tmp_path, cgroup, events):
    (tmp_path / "cgroup").write_text(cgroup)
    (tmp_path / "fs" / "a" / "b").mkdir(parents=True)
    if events is not None:
        (tmp_path / "fs" / "a" / "b" / "memory.events").write_text(events)
    return oom_kill_count(tmp_path / "cgroup", tmp_path / "fs")


def test_the_count_of_our_own_cgroup_is_read(tmp_path):
    assert 7 == laid_out(tmp_path, "0::/a/b\n", "low 0\noom 9\noom_kill 7\noom_group_kill 0\n")


def test_a_machine_that_does_not_count_gives_none(tmp_path):
    assert laid_out(tmp_path, "4:memory:/a/b\n0::/\n", None) is None


def test_a_file_of_another_shape_gives_none(tmp_path):
    assert laid_out(tmp_path, "0::/a/b\n", "something else entirely\n") is None
