"""The example in docs/adding_a_model.md is code that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_line_of_the_example_stands_in_the_sources_in_that_order():
    page = (ROOT / "docs" / "adding_a_model.md").read_text(encoding="utf-8")
    section = page.split("## A backbone")[1].split("\n## ")[0]
    example, row = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(section.splitlines()) < 60
    for shown, name in ((example, "mobilenet_v1.py"), (row, "catalogue.py")):
        source = map(
            str.strip, (ROOT / "backbones" / name).read_text(encoding="utf-8").replace("),\n", ")\n").splitlines()
        )
        missing = [line for line in shown.splitlines() if line and line.strip() not in source]
        assert missing == []
