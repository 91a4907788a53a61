"""The loading of alignment models: once for all who want one, and what becomes of those that cannot be had."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from speech_common.job import Abandoned


def test_there_is_none_for_a_language_that_nobody_has_a_model_for(aligners, models_dir):
    found = aligners(models_dir)
    assert [found.find(code) for code in ("fr", "ja", "xx")] == [None, None, None]


def test_broken_model_is_told_once_and_tried_again_after_ten_minutes(aligners, english, tmp_path, caplog):
    now_s = [100.0]
    found = aligners(tmp_path, clock=lambda: now_s[0])
    (tmp_path / "en").mkdir()
    (tmp_path / "en" / "config.json").write_text("{")
    with caplog.at_level(logging.INFO, "speech.whisperx"):
        assert [found.find("en") for _ in range(3)] == [None] * 3
        assert [record.getMessage().partition(" cause")[0] for record in caplog.records] == [
            "event=no_aligner language=en"
        ]
        assert "\n" not in caplog.text.rstrip()
    (tmp_path / "en" / "config.json").unlink()
    (tmp_path / "en").rmdir()
    (tmp_path / "en").symlink_to(english)
    now_s[0] += 599.0
    assert found.find("en") is None
    now_s[0] += 2.0
    assert found.find("en") is not None


def test_model_is_loaded_once_for_all_threads_and_two_are_kept(aligners, models_dir, english):
    for code in ("de", "it"):
        (models_dir / code).symlink_to(english)
    found = aligners(models_dir)
    together = threading.Barrier(4)

    def find(code):
        together.wait(60)
        return found.find(code)

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(find, ["en"] * 4)
    assert all(other is first for other in others)
    found.find("de")
    assert found.find("en") is first
    found.find("it")
    assert found.find("en") is not first


def test_who_leaves_while_a_model_loads_is_let_go_and_the_next_one_finds_it(aligners, models_dir):
    may_load = threading.Event()

    def begin():
        assert may_load.wait(60)
        return 0.0

    def leave():
        raise Abandoned

    found = aligners(models_dir, clock=begin)
    with pytest.raises(Abandoned):
        found.find("en", leave)
    may_load.set()
    assert found.find("en", leave) is not None


def test_no_library_takes_more_threads_than_it_is_told(models_dir, threads_taken):
    load = f"""
from speech_common.sound.windows import heard, stretches
from whisperx_server.alignment import Aligners
from whisperx_server.said import Heard
aligner = Aligners(Path({str(models_dir)!r}), "cpu", downloads_allowed=False).find("en")
[window] = stretches(heard([noise]), 28.0, 14.0)
"""
    taken = threads_taken(load, "aligner.sentences(window, Heard(' He was.', -0.1))")
    assert len(taken) > 1
    assert set(taken) == {1}
