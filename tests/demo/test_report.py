import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from shop.report import as_json, bars, render, tick_step, write
from shop.terminal import make_console, show


class Page(HTMLParser):
    """Collects what a page loads, and checks that its tags are closed."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, html):
        super().__init__()
        self.open, self.loads, self.tags = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Note what a tag loads, and that it is open."""
        self.tags.add(tag)
        self.loads += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Note a tag that closes itself."""
        self.tags.add(tag)

    def handle_endtag(self, tag):
        """Close the last open tag, which must be this one."""
        assert self.open.pop() == tag


def test_the_page_stands_alone(measured):
    """The report loads nothing and runs nothing: one file shows it all."""
    html = render(measured)
    page = Page(html)
    assert page.open == []
    assert page.loads == []
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://", html)


def test_the_page_says_the_numbers(measured):
    """The headline, the pictures, the code and the command are on the page."""
    html = render(measured).replace("\N{NO-BREAK SPACE}", " ")
    for words in ("1,200 ms", "80 ms", "15.0 ×", "16/16", "nothing lost"):
        assert words in html
    for words in ("last byte after 1,200 ms", "+2.0 ms", "ORDERS=2 make demo"):
        assert words in html
    assert html.count("<svg") == 2
    assert "<b>defer</b>(send_confirmation, order.id)" in html


def test_problems_are_shown_escaped(measured):
    """What went wrong stands on the page as text, whatever characters it has."""
    html = render(replace(measured, problems=["<script>alert(1)</script>"]))
    assert "&lt;script&gt;alert(1)" in html
    assert "nothing lost" not in html
    assert "script" not in Page(html).tags


def test_bars_tell_who_waited(measured):
    """A bar after the last byte is deferred, one before it made the customer wait."""
    kinds = {
        way: [bar["kind"] for bar in bars(picture, picture.end)]
        for way, picture in measured.pictures.items()
    }
    assert kinds["before"] == ["own", *["waited"] * 4]
    assert kinds["after"] == ["own", *["deferred"] * 4]
    last = bars(measured.pictures["after"], measured.pictures["after"].end)[-1]
    assert last["x"] + last["width"] == pytest.approx(100)


@pytest.mark.parametrize("longest", [0.5, 3, 9, 55, 1250, 8_000, 40_000])
def test_an_axis_has_a_few_ticks(longest):
    """An axis has at most nine ticks, however long the order took."""
    assert 1 <= len(range(0, int(longest) + 1, tick_step(longest))) <= 9


def test_both_files_are_written(measured, tmp_path):
    """The numbers are valid JSON beside the page, in a directory made for them."""
    page = write(measured, tmp_path / "new" / "demo")
    assert page.read_text("utf-8").startswith("<!doctype html>")
    numbers = json.loads(page.with_suffix(".json").read_text("utf-8"))
    assert numbers == json.loads(json.dumps(as_json(measured)))
    assert numbers["waits"]["after"]["p50"] == pytest.approx(80)
    assert numbers["settings"]["latencies"]["mail"] == 400
    assert numbers["versions"]["python"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_is_wide_enough(measured, width, capsys, monkeypatch):
    """No line of the result is wider than the terminal, and no table is cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    show(make_console(), measured)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    assert "Nothing lost." in shown
    assert "…" not in shown
    assert "+1,002 ms" in shown
