"""A whole run through the command line: what it leaves behind, and that a killed one ends as if it had not been."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path

import torch

from coevo.config.load import load_recipe
from coevo.lm.lineage import read_lineage, weights_hash
from coevo.lm.loading import load_policy, load_tokenizer
from coevo.loop.coevolution import scenario_of
from coevo.loop.material import load_material
from coevo.plan.plan import plan
from coevo.prompts import character_text
from coevo.rewards.verdict import Verdict, conclusion
from coevo.runs.folder import read_rows
from tests.integration.conftest import ROOT, SMOKE, coevo, environment, stamp

RESUMED_FILES = ("metrics.jsonl", "rollouts.jsonl", *(f"evaluation/{name}.json" for name in ("audit", "sft", "final")))


def digests(run: Path) -> dict[str, str]:
    """sha256 of everything that a resumed run must reproduce: every policy, metric, rollout and pool entry."""
    files = [*run.glob("phases/*/policy/*.safetensors"), *run.glob("pool/*.jsonl"), *(run / f for f in RESUMED_FILES)]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(files)}


def test_run_leaves_everything_a_report_needs(smoke_run: Path) -> None:
    names = [phase.name for phase in plan(load_recipe(SMOKE))]
    assert sorted(p.name for p in (smoke_run / "phases").iterdir()) == names
    assert all((smoke_run / "phases" / name / "done.json").exists() for name in names)
    for name in ("resolved.yaml", "environment.json", "code.diff", "timing.jsonl", "report/table.md", "report/report.html"):
        assert (smoke_run / name).exists(), name
    plots = {p.name for p in (smoke_run / "report").glob("*.png")}
    assert {"remid_by_subset.png", "reward_parts.png", "simulator.png", "learning.png"} <= plots
    # 12 test subsets: the ID one and the paper's eleven
    for moment in ("sft", "final"):
        assert len(json.loads((smoke_run / "evaluation" / f"{moment}.json").read_text())["subsets"]) == 12


def test_the_reward_was_audited_before_anything_was_trained_on_it(smoke_run: Path) -> None:
    verdict = Verdict.from_json(json.loads((smoke_run / "evaluation" / "audit.json").read_text()))
    scorer = stamp(smoke_run, "02-sft-scorer")
    assert (verdict.scorer, verdict.n, len(verdict.members)) == (scorer, 12, 12)
    assert verdict.members["empty"].statuses == {"empty": 12}
    shown = coevo("audit", "--resume", smoke_run)
    assert shown.returncode == 0 and "one slot wrong" in shown.stdout and conclusion(verdict) in shown.stdout


def test_a_reward_that_fails_its_audit_stops_the_run(tmp_path: Path) -> None:
    # information alone sees no padding: its junk is about as unlikely in every context (method, section 3)
    alone = "loop.rpm.weights={information: 1, register_gap: 0}"
    done = coevo("audit", SMOKE, "audit.on_failure=stop", alone, "--out", tmp_path / "run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "must not train anything yet" in done.stderr and "padding: the reference is above it in" in done.stderr
    assert {p.name for p in (tmp_path / "run" / "phases").iterdir()} == {"02-sft-scorer", "03-audit"}
    # the run's own command meets the same wall, and trains nobody on this reward
    again = coevo("train", "--resume", tmp_path / "run")
    assert again.returncode == 2 and "must not train anything yet" in again.stderr
    assert {p.name for p in (tmp_path / "run" / "phases").iterdir()} == {"01-sft-rpm", "02-sft-scorer", "03-audit"}


def test_each_phase_changes_its_own_policy_and_no_other(smoke_run: Path) -> None:
    written = {
        p.parent.parent.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in smoke_run.glob("phases/*/policy/*.safetensors")
    }
    assert len(set(written.values())) == len(written) == 7  # three SFTs, two players × two iterations
    base = weights_hash(Path(str(resources.files("coevo.lm") / "builtin")))
    for phase in written:
        lineage = read_lineage(smoke_run / "phases" / phase / "policy")
        assert (lineage.base, lineage.sha256, lineage.phase) == (base, written[phase], phase)
    simulator = [n for n in sorted(written) if "simulator" in n]
    for parent, child in itertools.pairwise(simulator):
        assert read_lineage(smoke_run / "phases" / child / "policy").parent == written[parent]


def test_rollouts_say_what_was_rewarded_and_why(smoke_run: Path) -> None:
    rows = [json.loads(line) for line in (smoke_run / "rollouts.jsonl").read_text().splitlines()]
    scorer = stamp(smoke_run, "02-sft-scorer")
    assert {row["role"] for row in rows} == {"simulator", "rpm"}
    assert all(row["scorer"] == scorer and row["prompt"] for row in rows)
    for row in rows:
        assert (row["reward"] is None) == (row["status"] != "ok")
        if row["role"] == "simulator" and row["reward"] is not None:
            gates = [v for k, v in row["parts"].items() if k.startswith("gate/")]
            assert len(gates) == 5
            if 0.0 in gates:
                assert row["reward"] == 0.0


def kill_inside(run: Path, phase: str, overrides: list[str]) -> None:
    """Starts a run, or resumes one, and kills it, without warning, once the phase has begun and got somewhere."""
    what = ["--resume", str(run)] if run.exists() else [str(SMOKE), *overrides, "--out", str(run)]
    command = [sys.executable, "-m", "coevo", "train", *what]
    process = subprocess.Popen(command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = run / "phases" / phase
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and process.poll() is None:
            checkpoints = list(folder.glob("checkpoints/checkpoint-*/complete"))
            if checkpoints or (
                folder.exists() and not phase.split("-")[1].startswith(("sft", "pretrain", "simulator", "rpm"))
            ):
                break
            time.sleep(0.02)
        assert process.poll() is None, f"the run ended before {phase} could be interrupted"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert folder.exists() and not (folder / "done.json").exists()


# a moment inside each kind of phase: sft, audit, evaluate, grpo of both players, harvest, accept
MOMENTS = ("02-sft-scorer", "03-audit", "05-evaluate-sft", "06-simulator-1", "07-harvest-1", "09-accept-1", "12-rpm-2")


def test_killed_in_every_kind_of_phase_and_resumed_is_bit_identical(smoke_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for phase in MOMENTS:
        kill_inside(run, phase, [])
    done = coevo("train", "--resume", run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert digests(run) == digests(smoke_run)


def test_stopped_by_sigterm_and_resumed_is_bit_identical(smoke_run: Path, tmp_path: Path) -> None:
    run, until = tmp_path / "run", ("--until", "sft-scorer")
    command = [sys.executable, "-m", "coevo", "train", str(SMOKE), "--out", str(run), *until]
    process = subprocess.Popen(
        command, env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    metrics = run / "metrics.jsonl"
    # eight updates, and a checkpoint of its own accord after the fourth
    while process.poll() is None and not (metrics.exists() and "02-sft-scorer" in metrics.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and time.monotonic() - began < 30
    assert re.search(
        r"stopped by SIGTERM\. Phase 02-sft-scorer has a checkpoint of its step \d\. Continue with: coevo train ", said
    )
    assert f"--resume {run}" in said and "Traceback" not in said
    assert not (run / "phases" / "02-sft-scorer" / "done.json").exists()
    done = coevo("train", "--resume", run, *until)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("01-sft-rpm", "02-sft-scorer"):
        policy = Path("phases") / name / "policy"
        assert {p.name: p.read_bytes() for p in (run / policy).iterdir()} == {
            p.name: p.read_bytes() for p in (smoke_run / policy).iterdir()
        }
    assert (smoke_run / "metrics.jsonl").read_bytes().startswith((run / "metrics.jsonl").read_bytes())


def test_killed_pretraining_is_bit_identical(tmp_path: Path) -> None:
    small = "base={kind: small, path: null, vocab: 600, hidden: 32, layers: 2, heads: 2, kv_heads: 1, intermediate: 64}"
    overrides = [
        small,
        "pretrain={samples: 256, batch_size: 16, save_steps: 4}",
        "limits={prompt: 700, response: 96, turn: 64}",
    ]
    whole = coevo("train", SMOKE, *overrides, "--out", tmp_path / "whole", "--until", "pretrain")
    assert whole.returncode == 0, whole.stderr[-3000:]
    kill_inside(tmp_path / "run", "01-pretrain", overrides)
    done = coevo("train", "--resume", tmp_path / "run", "--until", "pretrain")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("metrics.jsonl", "phases/01-pretrain/policy/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_changed_policy_stops_the_resume(smoke_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(smoke_run, copy)
    weights = copy / "phases" / "02-sft-scorer" / "policy" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    (copy / "phases" / "14-evaluate-final" / "done.json").unlink()
    done = coevo("train", "--resume", copy)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "adapter_model.safetensors: changed since phase 02-sft-scorer finished" in done.stderr


def test_a_prompt_from_the_pool_is_the_prompt_that_was_scored(smoke_run: Path) -> None:
    # a card's fields are read in the order of the file; a pool that sorts them would change every replayed prompt
    recipe = load_recipe(SMOKE)
    card = next(iter(load_material(recipe).id_train)).character
    for row in read_rows(smoke_run / "pool" / "iteration-1.jsonl"):
        scenario = scenario_of(row["scenario"])
        assert list(scenario.character) == list(card)
        assert character_text(scenario.character).startswith("name: ")


def test_without_sft_the_rpm_is_the_base_as_it_is(tmp_path):
    builtin = Path(str(resources.files("coevo.lm") / "builtin"))
    done = coevo("train", SMOKE, "--out", tmp_path / "run", "--until", "sft-rpm", "rpm_sft=null")
    assert done.returncode == 0, done.stderr
    policy = next((tmp_path / "run" / "phases").glob("*-sft-rpm")) / "policy"
    asked = load_tokenizer(builtin)("Who are you?", return_tensors="pt")["input_ids"]
    tuned, base = (load_policy(builtin, adapter, trainable=False, dtype="float32") for adapter in (policy, None))
    assert torch.equal(tuned(asked).logits, base(asked).logits)
