"""What the command line says to words that it does not know: the nearest one, or the right command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coevo import cli
from coevo.config.load import keys_like
from coevo.nearest import near_path

ROOT = Path(__file__).resolve().parents[2]
SMOKE = str(ROOT / "recipes" / "smoke.yaml")


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What goes to standard error; the exit code is 2 by either way."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code  # type: ignore[assignment]
    assert code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian", SMOKE], "there is no 'trian'. Did you mean train?"),
        (["zzz"], "there is no 'zzz'. Expected one of init, train, audit, "),
        (["data", "chekc", "x"], "there is no 'chekc'. Did you mean check?"),
        (["train", SMOKE, "--otu", "x"], "unknown option --otu. Did you mean --out?"),
        (["judge", "--data", "x"], "the following arguments are required: --responses"),
        (["report", "x", "--zzz"], "unknown option --zzz.\n"),
        (["train", SMOKE, "--seed", "3"], "a recipe's keys are set without dashes: seed=3\n"),
        (["train", "--seed", "3", SMOKE], "without dashes: seed=3\n"),
        (["train", SMOKE, "--seed=3"], "without dashes: seed=3\n"),
        (["train", SMOKE, "--seed"], "without dashes: seed=VALUE\n"),
        (["audit", SMOKE, "--loop.rpm.steps", "3"], "without dashes: loop.rpm.steps=3\n"),
        (["train", SMOKE, "--learning-rate", "1e-4"], " or rpm_sft.learning_rate=1e-4"),
        (["train", SMOKE, "--lr", "1e-4"], " or rpm_sft.learning_rate=1e-4"),
        (["score", "--data", "a", "--responses", "b", "--scorer", "c", "--k", "3"], "without dashes: k=3\n"),
        (["train", SMOKE, "--\x1b[2J"], r"unknown option --\x1b[2J."),
    ],
    ids=lambda value: " ".join(value[:3]).replace(SMOKE, "RECIPE") if isinstance(value, list) else "",
)
def test_unknown_words_are_answered_with_the_nearest(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = said(arguments, capsys)
    assert expected in shown and shown.startswith("usage: coevo") and "\x1b" not in shown


def test_files_and_folders_that_are_not_there_are_answered_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "recipes" / "paper").mkdir(parents=True)
    (tmp_path / "world.json").write_text("{}")
    for name in ("quickstart.yaml", "paper/llama.yaml"):
        (tmp_path / "recipes" / name).write_text("name: x\n")
    assert "Did you mean recipes/quickstart.yaml?" in said(["train", "recipes/quikstart.yaml"], capsys)
    assert "Did you mean recipes/quickstart.yaml?" in said(["train", "quickstart"], capsys)
    assert "Did you mean recipes/paper/llama.yaml?" in said(["experiment", "recipe/paper/lama.yaml"], capsys)
    assert "Did you mean runs/quickstart?" in said(["train", "--resume", "runs/quickstrat"], capsys)
    assert "Did you mean runs/quickstart?" in said(["report", "run/quickstart"], capsys)
    assert "Did you mean world.json?" in said(["data", "check", "wrold.json"], capsys)
    assert "Did you mean" not in said(["train", "recipes/nothing-like-it.yaml"], capsys)
    assert near_path(Path("recipes/quickstart.yaml")) is None, "it is there"


def test_an_experiment_and_a_recipe_name_each_others_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = str(ROOT / "recipes" / "paper" / "world.yaml")
    for command in ("train", "audit"):
        assert said([command, experiment], capsys).endswith(f"run it with: coevo experiment {experiment}\n")
    assert said(["experiment", SMOKE], capsys).endswith(f"run it with: coevo train {SMOKE}\n")
    short = tmp_path / "short.yaml"
    short.write_text("name: x\nloop: {iterations: 1}\n")
    assert said(["experiment", str(short)], capsys).endswith(f"run it with: coevo train {short}\n")


def test_keys_of_a_name() -> None:
    assert keys_like("seed", evaluation=False) == ["seed"]
    assert "loop.rpm.weights.register_gap" in keys_like("register_gap", evaluation=False)
    assert keys_like("estimator", evaluation=True) == ["estimator"] and keys_like("zzz", evaluation=False) == []


def test_version_help_and_waiting_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)

    done = run("-m", "coevo", "--version")
    assert done.returncode == 0 and done.stdout.startswith("coevo ") and not done.stderr
    done = run("-m", "coevo")
    assert done.returncode == 2 and "usage: coevo" in done.stderr and "compare training methods" in done.stderr
    script = "import os\nfrom coevo.cli import main\nmain(['report', 'x'])\nprint(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if given:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        assert run("-c", script).stdout == f"{expected}\n"


def test_a_shell_completes_commands(tmp_path, capsys):
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "coevo.bash").write_text(capsys.readouterr().out)
    asked = 'source "$1"; COMP_WORDS=(coevo exp); COMP_CWORD=1; _shtab_coevo; echo "${COMPREPLY[@]}"'
    told = subprocess.run(["bash", "-c", asked, "-", tmp_path / "coevo.bash"], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["experiment", "export"]
    assert cli.main(["completion", "zsh"]) == 0 and capsys.readouterr().out.startswith("#compdef coevo")
