"""docs/extending.md is true: what it says is done to a copy of coevo, and its commands and coevo's own tests run there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coevo.config.methods import METHOD_BLOCKS
from coevo.data import world, write_rpgbench
from coevo.lm.lineage import read_lineage
from tests.integration.conftest import ROOT, environment

DOC = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = """import shlex, sys
from coevo import cli
for line in sys.stdin:
    print("code", cli.main(shlex.split(line)[1:]), flush=True)
"""
"""Runs commands one a line, and says how each ended; one process for all, as torch takes seconds to import."""


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The first line of every block in a language, and the rest."""
    for found, text in BLOCK.findall(DOC.read_text(encoding="utf-8")):
        if found == language:
            first, _, rest = text.partition("\n")
            yield first, rest


def patched(text: str, patch: str) -> str:
    """A text with a block of the document done to it; lines without a sign and with a minus must be there, once."""
    lines = patch.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if not line.startswith("+"))
    new = "".join(line[1:] for line in lines if not line.startswith("-"))
    assert text.count("\n" + old) == 1, f"expected once, found {text.count(old)} times:\n{old}"
    return text.replace("\n" + old, "\n" + new)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """coevo with a method, a part of the reward and a rubric more, and the files that the commands name."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("coevo", "docs", "recipes", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for first, patch in blocks("diff"):
        file = root / first.removeprefix("@@ ")
        file.write_text(patched(file.read_text(encoding="utf-8"), patch), encoding="utf-8")
    for first, text in [*blocks("python"), *blocks("yaml")]:
        if first.startswith("# "):
            (root / first.removeprefix("# ")).write_text(text, encoding="utf-8")
    scenarios = world.generate("IDTest", 3, seed=0)
    write_rpgbench(root / "world.json", scenarios)
    rows = [{"sample_ID": x.sample_id, "response": "Good evening.", "model": "mine"} for x in scenarios]
    (root / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def in_copy(copy: Path, *arguments: str, stdin: str = "") -> str:
    """What a Python of its own prints, with the copy in the place of coevo."""
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=copy,
        env=environment(PYTHONPATH=str(copy)),
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_block_has_a_use() -> None:
    uses = {"diff": "@@ ", "yaml": "# ", "bash": "coevo "}
    for language, start in uses.items():
        found = [first for first, _ in blocks(language)]
        assert found and all(first.startswith(start) for first in found), found


def test_the_commands_run(copy: Path) -> None:
    commands = [line for first, rest in blocks("bash") for line in [first, *rest.splitlines()]]
    printed = in_copy(copy, "-c", RUN, stdin="\n".join(commands)).splitlines()
    assert [line for line in printed if line.startswith("code ")] == ["code 0"] * len(commands), printed
    # the method ran, on the two best of four answers to each of eight prompts, from the SFT model
    phases = copy / "runs" / "rest" / "phases"
    facts = json.loads((phases / "06-sft-better" / "done.json").read_text(encoding="utf-8"))["facts"]
    assert 8 <= facts["rows"] <= 16
    sft, better = (read_lineage(phases / name / "policy") for name in ("01-sft-rpm", "06-sft-better"))
    assert better.parent == sft.sha256
    # the audit shows the new part beside the sum, and the rubric asks one question a response
    text = "\n".join(printed)
    assert "2 × shortfall" in text and "shortfall alone" in text
    assert "3 questions" in text
    assert "0.5 × my_rewards:brief" in text and "my_rewards:brief alone" in text


def test_the_extended_copy_passes_the_tests_of_its_tables(copy: Path) -> None:
    tests = ["test_shortfall.py", "test_config.py", "test_methods.py", "test_rewards.py"]
    wanted = "shortfall or docs_name_every_key or rows_and_blocks or its_phases or parts_and_weights"
    files = [f"tests/unit/{name}" for name in tests]
    printed = in_copy(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", wanted, *files)
    # each method's phases, the new one's too, but for the loop's; and four others
    assert f"{len(METHOD_BLOCKS) + 4} passed" in printed, printed
