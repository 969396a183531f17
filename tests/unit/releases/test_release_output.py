"""Head and tail of what a command prints."""

from hypothesis import given
from hypothesis import strategies as st

from rollout.releases.output import Output


def an_output(*chunks: bytes, half: int = 10) -> Output:
    output = Output(half)
    for chunk in chunks:
        output.add(chunk)
    return output


def test_little_output_is_kept_whole():
    """Up to twice the half nothing is left out."""
    assert an_output(b"0123456789", b"abcdefghij").text() == "0123456789abcdefghij"


def test_much_output_keeps_head_and_tail_and_counts_the_rest():
    """The gap says how much is not shown."""
    text = an_output(b"HEAD......", b"x" * 5_000, b"......TAIL").text()
    assert text == "HEAD......\n[… 5,000 bytes left out …]\n......TAIL"


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_chunks_do_not_matter(chunks):
    """However the bytes arrive, the same is kept."""
    assert an_output(*chunks).text() == an_output(b"".join(chunks)).text()


def test_text_can_be_stored():
    """Broken UTF-8 is replaced and NUL, which databases refuse, is dropped."""
    assert an_output(b"a\x00b\xff").text() == "ab�"


def test_last_line_is_one_printable_line():
    """The reason takes the last line that says something, without control characters."""
    assert an_output(b"one\n\x1b[31mtwo\x07\n\n", half=100).last_line() == "[31mtwo"
    assert an_output().last_line() == ""
