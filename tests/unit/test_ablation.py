"""The ablation's table by hand, its intervals, and the command that pools seeds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from coevo import cli
from coevo.errors import CoevoError, ScoreError
from coevo.scoring.ablation import COLD, CORL, WITHOUT, Reading, markdown, tabulate
from coevo.types import Score


def reading(sample: str, variant: str, nats: float, tokens: int = 4, tag: str = "IDTest", status: str = "ok") -> Reading:
    return Reading(sample, tag, variant, Score(nats if status == "ok" else math.nan, tokens, status))


def run(**perplexity: float) -> list[Reading]:
    """Two references of 2 and 6 tokens, each token at 1 / perplexity; `corl`, `cold` and `without` name the variants."""
    names = {"corl": CORL, "cold": COLD, "without": WITHOUT}
    return [
        reading(f"s{n}", names[key], -tokens * math.log(value), tokens)
        for key, value in perplexity.items()
        for n, tokens in enumerate((2, 6))
    ]


def test_perplexity_is_over_tokens_not_over_references() -> None:
    # 2 tokens at 1/2 and 6 at 1/8: exp((2 ln 2 + 6 ln 8) / 8) = exp(2.5 ln 2) = 2 ** 2.5; the references' mean would be 4
    readings = [reading("a", CORL, -2 * math.log(2), 2), reading("b", CORL, -6 * math.log(8), 6)]
    table = tabulate([readings], resamples=50, seed=0)
    assert table["shifts"]["id"]["variants"][CORL]["perplexity"]["value"] == pytest.approx(2**2.5)
    assert table["shifts"]["id"]["n"] == 2


def test_ratios_are_paired_and_intervals_of_equal_readings_have_no_width() -> None:
    entry = tabulate([run(corl=2, cold=3, without=6)], resamples=50, seed=0)["shifts"]["id"]["variants"]
    # every reference of a variant has one perplexity, so resampling changes nothing: 3 / 2 and 6 / 2
    assert entry[COLD]["ratio_to_corl"] == pytest.approx({"value": 1.5, "low": 1.5, "high": 1.5})
    assert entry[WITHOUT]["perplexity"] == pytest.approx({"value": 6, "low": 6, "high": 6})
    assert "ratio_to_corl" not in entry[CORL]


def test_runs_are_averaged_and_drawn_again() -> None:
    table = tabulate([run(corl=2), run(corl=4), run(corl=6)], resamples=4000, seed=0)
    entry = table["shifts"]["id"]["variants"][CORL]
    assert entry["by_run"] == pytest.approx([2, 4, 6]) and table["runs"] == 3
    # of logarithms, the t test's: 4 times or over e^(4.303 s / sqrt(3)), with s the deviation of ln 2, ln 4 and ln 6
    reach = 4.3027 * np.std(np.log([2, 4, 6]), ddof=1) / math.sqrt(3)
    assert math.log(entry["perplexity"]["high"] / 4) == pytest.approx(reach, rel=0.15)
    assert math.log(4 / entry["perplexity"]["low"]) == pytest.approx(reach, rel=0.15)


def test_runs_that_agree_by_chance_are_no_finding() -> None:
    # Of three runs each, both variants of one law: all three ratios are on one side of 1 in a quarter of cases, and the
    # t test's interval leaves 1 out in 5 %. 200 draws have a standard error of 1.5 %
    missed = 0
    for draw in range(200):
        rng = np.random.default_rng(draw)
        runs = [run(corl=math.exp(1 + rng.normal(0, 0.1)), cold=math.exp(1 + rng.normal(0, 0.1))) for _ in range(3)]
        ratio = tabulate(runs, resamples=400, seed=draw)["shifts"]["id"]["variants"][COLD]["ratio_to_corl"]
        missed += not ratio["low"] <= 1 <= ratio["high"]
    assert missed <= 20, missed


def test_what_one_variant_cannot_score_is_left_out_of_all_and_counted() -> None:
    readings = [*run(corl=2, cold=4), reading("c", CORL, -9.0), reading("c", COLD, 0.0, status="reasoning")]
    entry = tabulate([readings], resamples=20, seed=0)["shifts"]["id"]
    assert (entry["n"], entry["n_all"]) == (2, 3)
    assert entry["statuses"] == {CORL: {"ok": 3}, COLD: {"ok": 2, "reasoning": 1}}
    assert entry["variants"][CORL]["perplexity"]["value"] == pytest.approx(2)


def test_a_variant_that_scores_next_to_nothing_leaves_the_others_theirs() -> None:
    readings = [*run(corl=2), *(reading(name, COLD, 0.0, status="reasoning") for name in ("s0", "s1"))]
    table = tabulate([readings], resamples=20, seed=0)
    assert table["shifts"]["id"]["n"] == 2 and COLD not in table["shifts"]["id"]["variants"]
    assert f"| {COLD} | n/a: of 2 not scored 2 reasoning |" in markdown(table)


def test_a_shift_of_which_nothing_was_scored_is_shown_as_such() -> None:
    readings = [*run(corl=2), reading("g", CORL, 0.0, tag="german", status="too_long")]
    table = tabulate([readings], resamples=20, seed=0)
    assert table["shifts"]["user"]["variants"] == {}
    assert "| n/a: of 1 not scored 1 too_long |" in markdown(table) and "user 0 of 1" in markdown(table)
    json.dumps(table, allow_nan=False)


def test_shifts_are_told_apart_and_independent_of_the_order_of_readings() -> None:
    readings = [
        *run(corl=2, cold=4),
        reading("g", CORL, -4 * math.log(5), tag="german"),
        reading("g", COLD, -4.0, tag="german"),
    ]
    table = tabulate([readings], resamples=30, seed=1)
    assert list(table["shifts"]) == ["id", "user"]
    assert table["shifts"]["user"]["variants"][CORL]["perplexity"]["value"] == pytest.approx(5)
    # the first variant is CoRL's whatever comes first
    assert list(tabulate([readings[::-1]], resamples=30, seed=1)["shifts"]["id"]["variants"]) == [CORL, COLD]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], "no readings; run a recipe with corl.ablation=true"),
        ([run(corl=2), run(cold=2)], "measured on different scenarios or variants"),
        ([[*run(corl=2), *run(corl=2)]], "2 readings occur twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: list[list[Reading]], expected: str) -> None:
    with pytest.raises(ScoreError, match=expected):
        tabulate(runs, resamples=10, seed=0)


def folder(path: Path, readings: list[Reading]) -> Path:
    (path / "evaluation").mkdir(parents=True)
    lines = [json.dumps(r.to_dict(), allow_nan=False) for r in readings]
    (path / "evaluation" / "ablation.jsonl").write_text("\n".join(lines) + "\n")
    return path


def test_the_command_pools_runs_and_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [folder(tmp_path / name, run(corl=value, without=2 * value)) for name, value in (("a", 2.0), ("b", 4.0))]
    out = tmp_path / "pooled"
    assert cli.main(["ablation", *map(str, runs), "--resamples", "100", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| reasoning + CoRL | 3.000 [" in printed and "| without reasoning | 6.000 [" in printed
    # each run's without is twice its own CoRL, so the paired ratio is 2 in every draw
    assert "] ×2.000 [2.000, 2.000] |" in printed
    assert (out / "ablation.md").read_text().strip() in printed
    assert json.loads((out / "ablation.json").read_text())["runs"] == 2


def test_the_command_says_what_is_missing_or_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablation", str(tmp_path)]) == 2
    assert "no such file; expected the readings of a run with corl.ablation=true" in capsys.readouterr().err
    broken = folder(tmp_path / "c", run(corl=2))
    path = broken / "evaluation" / "ablation.jsonl"
    path.write_text(path.read_text() + '{"variant": 3}\n')
    assert cli.main(["ablation", str(broken)]) == 2
    assert "ablation.jsonl, line 3: field sample_id is missing. Restore the file" in capsys.readouterr().err


def test_readings_survive_json() -> None:
    for one in (*run(corl=2), reading("x", COLD, 0.0, status="reasoning")):
        assert repr(Reading.from_json(json.loads(json.dumps(one.to_dict())))) == repr(one)
    assert issubclass(ScoreError, CoevoError)
