"""What the documents name is there: files of the tree, and files of their own room."""

import re
from pathlib import Path

import pytest

PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in ("design", "python")))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_is_there(page: str, project: Path) -> None:
    text = (project / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:pipeline|trainers|solvers|deploy|tests|tools)/[\w/.*-]*)`", text)
    assert [name for name in named if not (project / name).exists()] == []


def test_every_file_that_the_design_names_is_in_the_tree(project: Path) -> None:
    text = (project / "docs" / "design.md").read_text(encoding="utf-8")
    there = {path.name for room in ("pipeline", "trainers", "solvers") for path in
             (project / room).rglob("*.py")}  # fmt: skip
    assert set(re.findall(r"`(\w+\.py)`", text)) <= there
