"""The boxes that the report's page is made of."""

from collections.abc import Iterable
from html import escape


def card(title: str, note: str, content: str, *, wide: bool = False) -> str:
    """One box; all three texts are HTML."""
    kind = "card wide" if wide else "card"
    note = f'<p class="note">{note}</p>' if note else ""
    return f'<article class="{kind}"><h2>{title}</h2>{note}{content}</article>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and figures, as a list in columns; both are escaped."""
    pairs = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows)
    return f"<dl>{''.join(pairs)}</dl>"
