"""The command line: exit codes, messages, and that help and bad input answer without torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coevo import cli
from coevo.config import Recipe, SmallBase, dump_recipe, load_recipe
from coevo.errors import DataError
from coevo.loop.plan import Counts, duration, parameters, plan

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = str(ROOT / "recipes" / "quickstart.yaml")
SMOKE = str(ROOT / "recipes" / "smoke.yaml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["data", "world", "--help"],
        ["train", SMOKE, "--dry-run"],
        ["train", "gone.yaml"],
    ],
    ids=" ".join,
)
def test_help_dry_run_and_bad_recipes_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom coevo.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'trl', 'accelerate', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir()), "nothing is written"


def test_error_is_one_message_without_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coevo", "train", SMOKE, "sed=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "did you mean 'seed'?" in done.stderr and "Traceback" not in done.stderr and not done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_phases_come_in_the_order_of_the_method(path: Path) -> None:
    recipe = load_recipe(path)
    names = [phase.name for phase in plan(recipe, Counts(500, 50, 500, 100))]
    expected = ["pretrain"] if recipe.pretrain else []
    expected += ["sft-rpm", "sft-scorer", "sft-simulator", "evaluate-sft"]
    for k in range(1, recipe.loop.iterations + 1):
        expected += [f"simulator-{k}", f"harvest-{k}", f"rpm-{k}", f"accept-{k}"]
    expected += ["evaluate-final"]
    assert names == [f"{number:02d}-{name}" for number, name in enumerate(expected, start=1)]


def test_plan_counts_updates_and_sequences() -> None:
    # 100 ID samples in batches of 32 are 3 whole updates = 96 sequences; GRPO: 40 steps × 12 prompts × 8 completions
    phases = {phase.name: phase for phase in plan(Recipe(name="x"), Counts(100, 96, 8000, 1200))}
    sft, simulator, accept = phases["01-sft-rpm"], phases["05-simulator-1"], phases["08-accept-1"]
    assert (sft.kind, sft.updates, sft.samples, sft.sequences) == ("sft", 3, 100, 96)
    assert (simulator.role, simulator.iteration, simulator.updates) == ("simulator", 1, 40)
    assert (simulator.samples, simulator.sequences) == (480, 3840)
    assert (accept.updates, accept.units) == (0, 192), "both models answer the 96 held-out scenarios"
    # 96 sequences × (120 + 32) tokens × 6 FLOPs × parameters at 6e10 FLOP/s
    size = parameters(Recipe(name="x"))
    assert size is not None and sft.tokens_estimate == 96 * 152
    assert sft.seconds_estimate == pytest.approx(6 * size * 96 * 152 / 6e10)


def test_parameters_of_small_and_hub_bases() -> None:
    # 2048·128 embedding + 4 layers of q, o: 2·128·128, k, v: 2·128·64, and 3·128·384
    base = SmallBase(vocab=2048, hidden=128, layers=4, heads=4, kv_heads=2, intermediate=384)
    expected_size = 2048 * 128 + 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384)
    assert parameters(Recipe(name="x", base=base)) == expected_size
    for path, expected in (("Qwen/Qwen3-4B", 4e9), ("org/tiny-0.6B-Base", 6e8), ("my/model", None)):
        assert parameters(Recipe.model_validate({"name": "x", "base": {"kind": "hub", "path": path}})) == expected


def test_split_that_is_not_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "world.json"
    assert cli.main(["data", "world", "--out", str(file), "--train", "4", "--test", "1"]) == 0
    data = {"kind": "file", "path": str(file), "reference": "carry", "train_split": "IDTrian", "dev": 2}
    with pytest.raises(DataError, match="IDTrian"):
        plan(Recipe.model_validate({"name": "x", "data": data, "loop": {"shifts": ["user"]}}))


def test_dry_run_prints_every_phase_and_its_assumptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--dry-run", QUICKSTART, "loop.iterations=1"]) == 0
    shown = capsys.readouterr().out
    assert "evaluate-final" in shown and "rpm-1" in shown and "rpm-2" not in shown
    assert "estimates" in shown and "FLOP/s" in shown


def test_until_ends_the_plan_at_a_phase_that_must_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", SMOKE, "--dry-run", "--until", "rpm-1"]) == 0
    shown = capsys.readouterr().out
    assert "08-rpm-1" in shown and "accept" not in shown
    assert cli.main(["train", SMOKE, "--dry-run", "--until", "rpm-9"]) == 2
    assert "expected one of pretrain, sft-rpm" in capsys.readouterr().err


def test_taken_folder_is_refused_and_untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert cli.main(["train", SMOKE, "--out", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_resume_keeps_the_runs_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--resume", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    (tmp_path / "resolved.yaml").write_text(dump_recipe(load_recipe(SMOKE)), encoding="utf-8")
    assert cli.main(["train", "--resume", str(tmp_path), SMOKE, "--dry-run"]) == 0
    capsys.readouterr()
    assert cli.main(["train", SMOKE, "loop.rpm.steps=9", "--resume", str(tmp_path), "--dry-run"]) == 2
    assert "differs from the run's in loop.rpm.steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["train", SMOKE, "--otu", "x"], ["train", SMOKE, "other.yaml"], ["fly"], [], ["data", "world"], ["report"]],
    ids=" ".join,
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2 and "usage" in capsys.readouterr().err


def test_interrupt_names_how_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(recipe: Recipe, out: Path, **_: object) -> None:
        out.mkdir()
        (out / "resolved.yaml").write_text(dump_recipe(recipe))
        raise KeyboardInterrupt

    module = type(sys)("coevo.loop.run")
    module.train = interrupted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coevo.loop.run", module)
    assert cli.main(["train", SMOKE, "--out", str(tmp_path / "run")]) == 130
    assert f"coevo train --resume {tmp_path / 'run'}" in capsys.readouterr().err


def test_only_rank_0_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert cli.main(["train", SMOKE, "--dry-run"]) == 0
    assert cli.main(["train", SMOKE, "sed=1"]) == 2
    shown = capsys.readouterr()
    assert not shown.out and not shown.err


def test_data_world_then_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "world.json"
    assert cli.main(["data", "world", "--out", str(file), "--train", "6", "--test", "1"]) == 0
    assert "18 scenarios" in capsys.readouterr().out, "6 IDTrain + 12 test subsets of 1"
    before = file.read_bytes()
    assert cli.main(["data", "world", "--out", str(file)]) == 2
    assert file.read_bytes() == before
    assert cli.main(["data", "check", str(file)]) == 0
    file.write_bytes(before[: len(before) // 2])
    assert cli.main(["data", "check", str(file)]) == 2
    assert "problem(s)" in capsys.readouterr().err


def test_report_of_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_progress_shows_place_figure_and_time_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    progress = cli.ConsoleProgress(plan(Recipe(name="x")), every_s=0.0)
    progress.phase("01-sft-rpm", 62)
    progress.advance(31, "loss 1.50")
    progress.advance(1000)
    progress.done("01-sft-rpm")
    progress.done("02-sft-scorer")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("[1/13] 01-sft-rpm 31/62 · loss 1.50") and "to go" in lines[1]
    assert "62/62" in lines[2], "never beyond the end"
    assert "done in" in lines[3] and lines[4] == "[2/13] 02-sft-scorer: done before"


def test_durations() -> None:
    assert [duration(s) for s in (None, 0.2, 40, 600, 7200)] == ["unknown", "< 1 s", "40 s", "10 min", "2.0 h"]
