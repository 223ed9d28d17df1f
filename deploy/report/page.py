"""The page that a study's report and a comparison share: a title, tiles, and boxes with content.

1. The page needs nothing else: no network, no script, no other file; it can be sent by mail.
2. Every text is escaped by the template; drawings alone are markup.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_PAGES = Environment(
    loader=PackageLoader("deploy"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


class Tile(NamedTuple):
    """One figure in large print, with its name above and more of it below."""

    label: str
    value: str
    more: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One box of a page; what is empty is left out.

    Attributes:
        title: Heading of the box.
        note: What a reader should know of the content.
        drawings: Plots and pictures, side by side where there are several.
        facts: Names and figures, in columns.
        table: Rows of a table, its heads first.
        lines: Items of a list, each with the details below it.
        wide: Whether the box is as wide as the page.
    """

    title: str
    note: str = ""
    drawings: Sequence[Markup] = ()
    facts: Sequence[tuple[str, str]] = ()
    table: Sequence[Sequence[str]] = ()
    lines: Sequence[tuple[str, str]] = ()
    wide: bool = False


def render(*, tiles: Iterable[Tile], cards: Iterable[Card], **texts: str | bool) -> str:
    """The whole page.

    Args:
        tiles: The most important figures.
        cards: Everything else.
        texts: What else the template names, all of it; ``source`` is the study as it was written.
    """
    template = _PAGES.get_template("report.html")
    return template.render(tiles=list(tiles), cards=list(cards), **texts)
