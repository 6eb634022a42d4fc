"""The experiment matrix as a command: killed and gone on with, to one report; cells that share phases are what they were."""

from __future__ import annotations

import csv
import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coevo.experiment.run import LOCK_FILE
from tests.integration.conftest import environment

ROOT = Path(__file__).resolve().parents[2]
TINY = f"""
name: tiny
recipe: {ROOT / "recipes" / "smoke.yaml"}
shared: {{evaluation.k: 1}}
seeds: [0]
methods:
  sft: {{method: sft}}
  rejection_sft: {{method: rejection_sft, method.prompts: 8, method.group: 2, method.tune.batch_size: 4}}
"""


def start(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "coevo", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said[-3000:]
    return said


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.1)


def test_killed_and_gone_on_with_to_one_report(tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    file.write_text(TINY)
    words = ("experiment", file, "--out", out, "--jobs", 1)
    first = start(*words)
    wait_for(out / "estimators" / "base" / "scorer" / "phases" / "01-sft-rpm")
    first.send_signal(signal.SIGKILL)
    first.wait()
    # its cell outlives it and holds the folder's lock until it ends
    with (out / LOCK_FILE).open("ab") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    while True:
        again = start(*words)
        said, _ = again.communicate(timeout=500)
        if again.returncode != 2 or "is in use by another coevo experiment, or by cells" not in said:
            break
        time.sleep(1)
    assert again.returncode == 0, said[-3000:]
    assert "rejection_sft/seed-0; 4 of 7 phases are another cell's as well" in said
    assert "Share of right slots, %" in said and "R-EMID" in said
    assert {path.name for path in (out / "report").iterdir()} == {
        "result.json", "report.md", "table.csv", "report.html", "methods.png", "metrics.png", "bounds.png",
    }  # fmt: skip
    with (out / "report" / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["method"], row["level"], row["measure"]): row["value"] for row in rows}
    cell = out / "cells" / "base" / "sft" / "seed-0" / "evaluation" / "final.jsonl"
    shares = [json.loads(line) for line in cell.read_text().splitlines()]
    german = next(row["share_right"] for row in shares if row["subset_tag"] == "german")
    assert float(found["sft", "german", "share_right"]) == pytest.approx(german, abs=1e-4)
    assert ("rejection_sft", "german", "bound") in found
    # nothing is run twice
    assert "4 of 4 are done already" in ended(start(*words))


@pytest.mark.slow
def test_a_cell_with_phases_of_another_is_what_it_would_have_been_alone(tmp_path: Path) -> None:
    file, out = tmp_path / "pair.yaml", tmp_path / "out"
    file.write_text(
        f"name: pair\nrecipe: {ROOT / 'recipes' / 'smoke.yaml'}\nseeds: [0]\nbaseline: coevolution\n"
        "methods: {coevolution: {}, no_id_anchor: {loop.rpm.id_share: 0}}\n"
    )
    said = ended(start("experiment", file, "--out", out, "--jobs", 1))
    assert "no_id_anchor/seed-0; 7 of 14 phases are another cell's as well" in said
    ended(start("train", ROOT / "recipes" / "smoke.yaml", "loop.rpm.id_share=0", "--out", tmp_path / "alone"))
    cell = out / "cells" / "base" / "no_id_anchor" / "seed-0"
    for name in ("evaluation/final.jsonl", "evaluation/sft.json", "pool/iteration-2.jsonl", "metrics.jsonl"):
        alone = [line for line in (tmp_path / "alone" / name).read_text().splitlines() if line]
        assert sorted(alone) == sorted((cell / name).read_text().splitlines()), name
    for phase in (tmp_path / "alone" / "phases").iterdir():
        # the manifests hold the sha256 of every policy; the recipes' names differ
        own, adopted = (json.loads((p / "done.json").read_bytes()) for p in (phase, cell / "phases" / phase.name))
        assert own | {"run": None} == adopted | {"run": None}, phase.name
