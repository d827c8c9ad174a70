import pytest

from shop.listing import Line, listing
from shop.settings import FRAMEWORKS


def text(line: Line) -> str:
    """Return a line of code as it stands in the file."""
    return "".join(piece for piece, _ in line.pieces)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_change_is_one_word_per_line(framework):
    """Both endpoints differ in the four lines that wait or defer, and nowhere else."""
    shown = listing(framework)
    after = [text(line).strip() for line in shown.after if line.changed]
    assert len(after) == 4
    assert all(line.startswith("defer(") for line in after)
    assert sum(line.changed for line in shown.before) == 4
    same = [
        [text(line) for line in lines[1:] if not line.changed]
        for lines in (shown.before, shown.after)
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_word_is_marked(framework):
    """The word defer is marked wherever it stands, and no other."""
    shown = listing(framework)
    marked = {
        piece
        for line in [*shown.before, *shown.after, *shown.install]
        for piece, is_marked in line.pieces
        if is_marked
    }
    assert marked == {"defer"}
    assert "from postlude import defer" in [text(line) for line in shown.install]
    assert shown.file == f"examples/shop/{framework}_app.py"
