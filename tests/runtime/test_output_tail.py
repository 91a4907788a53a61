"""The ring of last lines, whatever a process prints."""

from hypothesis import given
from hypothesis import strategies as st

from autostart.runtime.output_tail import OutputTail


def fed(*chunks, **options):
    tail = OutputTail(**options)
    for chunk in chunks:
        tail.feed(chunk)
    return tail


def test_lines_come_back_oldest_first():
    assert ["one", "", "two"] == fed(b"one\n\ntwo\n").last(10)


def test_only_the_last_lines_are_kept():
    tail = fed(b"".join(b"%d\n" % n for n in range(1000)), most_lines=3)
    assert ["997", "998", "999"] == tail.last(10)


def test_a_line_without_its_newline_counts():
    assert ["whole", "Segmentation fau"] == fed(b"whole\nSegmentation", b" fau").last(10)


def test_a_long_line_is_cut_and_says_so():
    assert ["xxxx…", "next"] == fed(b"x" * 100, b"x" * 100 + b"\nnext\n", most_line_bytes=4).last(10)


def test_a_line_of_just_the_limit_is_whole():
    assert ["xxxx"] == fed(b"xxxx\r\n", most_line_bytes=4).last(10)


def test_bytes_that_are_not_utf8_are_replaced():
    assert ["a\ufffdb"] == fed(b"a\xffb\n").last(10)


def test_a_character_split_between_chunks_is_whole():
    assert ["é"] == fed(b"\xc3", b"\xa9\n").last(10)


def test_of_a_progress_bar_the_last_version_stays():
    assert ["100%", "done"] == fed(b"1%\r", b"50%\r100%\n", b"done\r\n").last(10)


def test_every_line_is_forwarded_even_of_a_flood():
    lines = []
    fed(b"".join(b"%d\n" % n for n in range(1000)), most_lines=3, on_line=lines.append)
    assert [str(n) for n in range(1000)] == lines


@given(
    st.lists(st.sampled_from([b"a", b"bb", b"\r", b"\n", b"\r\n", b"\xc3\xa9", b"\xff", b"c" * 7])), st.data()
)
def test_how_the_stream_is_cut_into_chunks_does_not_matter(pieces, data):
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = fed(stream, most_lines=4, most_line_bytes=4)
    assert whole.last(9) == fed(*chunks, most_lines=4, most_line_bytes=4).last(9)
    assert len(whole.last(9)) <= 5
