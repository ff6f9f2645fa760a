"""README's table of providers is what the adapters do now."""

from __future__ import annotations

from tests.feature_matrix import BEGIN, END, README, cell, rewritten, table


def test_the_table_in_the_readme_is_what_the_adapters_do() -> None:
    readme = README.read_text()
    assert BEGIN in readme
    assert END in readme
    assert rewritten(readme) == readme, "run `python -m tests.feature_matrix`"


def test_a_cell_tells_what_happens_to_the_request() -> None:
    assert cell("openai", {"seed": 1}) == "yes"
    assert cell("anthropic", {"seed": 1}) == "dropped"
    assert cell("anthropic", {"n": 2}) == "400"
    assert cell("mistral", {"seed": 1}) == "changed"
    assert cell("deepseek", {"functions": [{"name": "f"}]}) == "emulated"


def test_every_row_has_a_cell_for_every_provider() -> None:
    assert len({line.count("|") for line in table().splitlines()}) == 1
