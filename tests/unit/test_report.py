"""The report, on run folders written here: finished, unfinished and hostile ones."""

import base64
import json
import math
import shutil
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest

from coevo import cli
from coevo.config import Evaluation
from coevo.errors import DataError
from coevo.maths.stats import Measure
from coevo.report import audit_table, build, console_table, drift, simulator_examples
from coevo.report.changes import verdicts
from coevo.report.compare import comparison
from coevo.report.read import lost_most, read_run
from coevo.report.tables import lines, markdown, results
from coevo.rewards.verdict import Agreement, Member, Verdict
from coevo.scoring.summary import Row, summarise
from coevo.types import SHIFT_OF_TAG
from tests.helpers.hostile import HOSTILE, assert_harmless, planted

PNG = b"\x89PNG\r\n\x1a\n"
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & 日本語のユーザー'
CONFIG = Evaluation(k=4, resamples=200)
SCORER = "0123456789abcdef" * 4


def rows(gain, n=20, noise=1.0, text="こんにちは"):
    """Rows of twelve subsets; `gain` is added to what the shifted ones lose (nats). Difficulty is a scenario's own."""
    made = []
    for place, tag in enumerate(["IDTest", *SHIFT_OF_TAG]):
        generator = np.random.default_rng([7, place])
        difficulty = generator.normal(0, 4, n)
        jitter = np.random.default_rng([int(gain * 10), place]).normal(0, noise, n)
        for i in range(n):
            lost = -1 if tag == "IDTest" else -8 - place / 3 + gain
            remi = lost + difficulty[i] + jitter[i]
            parts = {"mi_response": 20 + remi, "mi_reference": 20.0, "remi": remi, "register_gap": -2.0}
            parts |= {"likelihood_gap": remi - 2, "component_u": remi / 2, "component_c": -0.2, "component_d": 0.1}
            right = min(1.0, max(0.0, 0.8 + remi / 20))
            made.append(Row(f"{tag}-{i}", tag, "eine Nutzerin", text, text, "ref", "ok", 4, **parts, share_right=right))
    made[3] = Row("IDTest-3", "IDTest", "p", "q", "", "ref", "truncated", share_right=0.0)
    return made


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def write_evaluation(run, name, evaluated, scorer=SCORER):
    summary = summarise(evaluated, CONFIG, 0, model=f"rpm/{name}", scorer=scorer)
    write_lines(run / "evaluation" / f"{name}.jsonl", [row.to_dict() for row in evaluated])
    (run / "evaluation" / f"{name}.json").write_text(json.dumps(summary), encoding="utf-8")


def write_second(run, name, evaluated, scorer="e" * 64):
    """Adds a second scorer's measurement to an evaluation that is there."""
    path = run / "evaluation" / f"{name}.json"
    summary = summarise(evaluated, CONFIG, 0, model=f"rpm/{name}", scorer=scorer)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"second_scorer": summary}), encoding="utf-8")
    write_lines(run / "evaluation" / f"{name}-second.jsonl", [row.to_dict() for row in evaluated])


def audited(share):
    """An audit whose reward has the reference above loops in this share of the scenarios."""
    names = ("reward", "information", "register_gap")
    above = {name: Measure(share, share - 0.05, 1.0) for name in names}
    agreement = {name: Agreement(Measure(0.95, 0.94, 0.96), 0.93, 0.8) for name in names}
    members = {"loop": Member(96, {"too_long": 3}, above, {"Film & Television": share, "german": 1.0})}
    return Verdict(SCORER, {"information": 1.0, "register_gap": 1.0}, 0.99, 0.9, 96, 0, members, agreement, 2500)


def write_audit(run, verdict):
    (run / "evaluation" / "audit.json").write_text(json.dumps(verdict.to_dict()), encoding="utf-8")


def metrics():
    made = []
    generator = np.random.default_rng(0)
    for phase, start in (("00-pretrain", 5.0), ("01-sft-rpm", 3.0), ("02-sft-scorer", 3.4), ("03-sft-simulator", 4.0)):
        made += [
            {
                "phase": phase,
                "role": phase[3:],
                "iteration": None,
                "step": step,
                "loss": start * math.exp(-step / 80) + 1,
            }
            for step in range(0, 200, 10)
        ]
    for k in (1, 2):
        for step in range(40):
            noise = generator.normal(0, 0.6, 5)
            simulated = {"reward": 10 + step / 8 + noise[0], "regret": 12 + step / 9 + noise[1], "pass_rate": 0.8}
            simulated |= {f"gate/{gate}": 0.9 for gate in ("shift", "fluency", "persona", "novelty", "whole")}
            made.append({"phase": f"0{k}-simulator-{k}", "role": "simulator", "iteration": k, "step": step} | simulated)
            played = {"reward": -20 + step / 6 + noise[2], "part/likelihood": -18 + noise[3], "part/information": 6.0}
            played |= {"part/negative_remid": -3 + noise[4], "part/anchor_remi": -1.0, "share_right": 0.6, "kl": 0.02}
            made.append({"phase": f"0{k}-rpm-{k}", "role": "rpm", "iteration": k, "step": step} | played)
    return made


def turns(iteration, n=15, text="Wie geht es Ihnen?"):
    return [
        {
            "phase": f"{4 * iteration}-simulator-{iteration}",
            "step": i,
            "role": "simulator",
            "sample_id": f"IDTrain-{i}",
            "subset_tag": ["german", "Theater", "korean"][i % 3],
            "prompt": [{"role": "system", "content": f"write a user {text}"}],
            "completion": f"{text} {i // 3}",
            "reward": 3.5,
            "parts": {"regret": 4.0, "gate/shift": 1.0},
            "status": "ok",
            "scorer": SCORER,
            "answer": f"Gut, {text}",
        }
        for i in range(n)
    ]


@pytest.fixture
def run(tmp_path):
    """A finished run in which the shifted subsets gained 4 nats."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "resolved.yaml").write_text("name: small-world\nseed: 0\n", encoding="utf-8")
    (folder / "environment.json").write_text('{"torch": "2"}', encoding="utf-8")
    write_evaluation(folder, "sft", rows(0))
    write_evaluation(folder, "final", rows(4))
    write_audit(folder, audited(0.875))
    write_lines(folder / "metrics.jsonl", metrics())
    rpm = {"phase": "7-rpm-1", "role": "rpm", "completion": "nicht zeigen"}
    write_lines(folder / "rollouts.jsonl", [*turns(1), rpm, *turns(2)])
    return folder


class Tags(HTMLParser):
    """Every tag and attribute of a page, and its scripts."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.scripts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        # within it alone the parser takes `<` for text
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def assert_page_harmless(page):
    """The page runs its own scripts alone, leads nowhere but to itself, and holds nothing that is obeyed."""
    parsed = Tags(page)
    assert not set("\x1b\x07\x9b\r\u202e\u2066\u2028") & set(page)
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert all(value.startswith("data:image/png;base64,") for _, name, value in parsed.attributes if name == "src")
    assert all(value.startswith("#") for _, name, value in parsed.attributes if name == "href")
    # two blocks of data, the library, the page's own
    assert len(parsed.scripts) == 4
    policy = next(value for _, name, value in parsed.attributes if name == "content" and "default-src" in value)
    for script in parsed.scripts[2:]:
        assert base64.b64encode(sha256(script.encode()).digest()).decode() in policy
    return parsed


def test_a_finished_run_gives_every_file_and_the_same_bytes_again(run):
    written = build(run)
    names = ["table.md", "results.json", "remid_by_subset.png", "reward_parts.png", "simulator.png", "learning.png"]
    assert [path.name for path in written] == [*names, "report.html"]
    assert sorted(path.name for path in (run / "report").iterdir()) == sorted(path.name for path in written)
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(PNG)
            assert path.stat().st_size > 5000
    first = [path.read_bytes() for path in written]
    assert first == [path.read_bytes() for path in build(run)]


def test_real_text_has_figures_per_token_where_the_world_has_right_slots(run):
    real = [replace(row, share_right=math.nan, remi_per_token=-0.1234, register_gap_per_token=0.5) for row in rows(0)]
    for name in ("sft", "final"):
        write_evaluation(run, name, real)
    found = read_run(run)
    text = markdown(found)
    assert "| R-EMI | M | R-EMI + M | R-EMID | R-EMI/token | M/token |" in text and "right (%)" not in text
    assert "-0.123 [-0.123, -0.123] | 0.500 [0.500, 0.500] |" in text
    assert "each text by its own length" in text and "R-EMI/token" in console_table(run)
    assert "R-EMI/token" in build(run)[-1].read_text(encoding="utf-8")


def test_the_table_names_how_it_was_measured(run):
    text = markdown(read_run(run))
    assert "Estimator club; scale sum (nats per response); N = 240; K = 4; negatives pool" in text
    assert "scorer 0123456789ab." in text
    # R-EMI never without M, the whole gap beside them, before and after and the change for all eleven subsets and ID
    assert "| subset |  | scored | right (%) | R-EMI | M | R-EMI + M | R-EMID |" in text
    for tag in ("IDTest", *SHIFT_OF_TAG):
        assert text.count(f"| {tag} | before |") == text.count(f"| {tag} | after |") == 1
    assert "| IDTest | before | 19 of 20 |" in text
    for shift in ("id", "user", "character", "dialogue"):
        assert f"| {shift} | change |" in text


def test_remid_moved_by_the_paired_change(run):
    # the shifted subsets gained 4 nats and ID none, so R-EMID fell by 4, up to the jitter of 1 nat: of 100 scenarios a
    # shift and 19 ID ones its standard error is sqrt(2) * sqrt(1/19 + 1/40) = 0.4
    read = read_run(run)
    for shift in ("user", "character", "dialogue"):
        assert read.change["shifts"][shift]["remid"]["value"] == pytest.approx(-4, abs=1.6)
    anchor, *moved = verdicts(read)
    assert all(sentence.endswith("fell.") or "excludes 0" in sentence for sentence in moved)
    assert len(moved) == 3
    assert anchor.endswith("R-EMI on ID did not move beyond noise.")


def test_a_loss_on_id_is_not_sold_as_a_gain_under_shifts(run):
    # R-EMID = R-EMI(ID) - R-EMI(shift): 5 nats lost on ID alone lower it by 5
    worse = [replace(row, remi=row.remi - 5) if row.subset_tag == "IDTest" else row for row in rows(0)]
    write_evaluation(run, "final", worse)
    anchor, *moved = verdicts(read_run(run))
    assert "paired change of R-EMI -5.00" in anchor
    assert anchor.endswith("R-EMI on ID fell: what R-EMID lost by that is no gain under the shifts.")
    assert all("R-EMID fell." in sentence for sentence in moved)


def test_pairing_sees_what_overlapping_intervals_hide(run):
    # scenarios differ by 4 nats among themselves, the gain is 1.5, the jitter 0.1: intervals overlap
    write_evaluation(run, "sft", rows(0, noise=0.1))
    write_evaluation(run, "final", rows(1.5, noise=0.1))
    assert any("The two intervals overlap, but the paired change excludes 0." in line for line in verdicts(read_run(run)))


def test_no_change_is_said_to_be_noise(run):
    write_evaluation(run, "final", rows(0))
    _, *sentences = verdicts(read_run(run))
    assert len(sentences) == 3
    assert all("R-EMID did not move beyond noise." in sentence for sentence in sentences)
    assert "did not move beyond noise" in console_table(run)


def test_without_rows_the_intervals_decide(run):
    (run / "evaluation" / "sft.jsonl").unlink()
    write_evaluation(run, "final", rows(0.1))
    read = read_run(run)
    assert read.change is None
    assert all("did not move beyond noise" in sentence for sentence in verdicts(read))
    assert {line.moment for line in lines(read, "subsets")} == {"before", "after"}


def test_another_scorer_is_not_compared(run):
    write_evaluation(run, "final", rows(4), scorer="f" * 64)
    read = read_run(run)
    assert read.change is None
    assert verdicts(read) == []
    assert "measured differently" in " ".join(read.missing)


def test_results_json_holds_both_evaluations(run):
    record = json.loads(results(read_run(run)))
    assert record["before"] == json.loads((run / "evaluation" / "sft.json").read_text(encoding="utf-8"))
    assert record["after"]["model"] == "rpm/final"
    assert record["change"]["subsets"]["german"]["remi"]["value"] == pytest.approx(4, abs=1.5)
    assert record["missing"] == []


def test_hostile_names_are_text_in_every_file(run, capsys, monkeypatch):
    # pictures have no commands, and are slow
    monkeypatch.setattr("coevo.report.plots.draw", lambda run: {})
    for name in ("sft", "final"):
        write_second(run, name, rows(4))
    for path in (run / "evaluation").iterdir():
        records = [planted(json.loads(line), "german") for line in path.read_text(encoding="utf-8").splitlines()]
        # hostile names of samples are not one name
        numbered = [{**r, "sample_id": f"{r['sample_id']}{n}"} if "sample_id" in r else r for n, r in enumerate(records)]
        write_lines(path, numbered)
    write_lines(run / "rollouts.jsonl", planted(turns(2), "german", "Gut", "write a user"))
    (run / "resolved.yaml").write_text(json.dumps({"name": HOSTILE}), encoding="utf-8")
    (run / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE}), encoding="utf-8")
    assert cli.main(["report", str(run)]) == 0
    page = run / "report" / "report.html"
    text = page.read_bytes().decode()
    assert "calc" in text
    assert_page_harmless(text)
    # the other files have neither scripts nor links
    page.unlink()
    assert_harmless(run / "report", capsys.readouterr().out)


def test_the_page_is_one_file_and_escapes_what_models_write(run):
    write_evaluation(run, "final", rows(4, text=EVIL))
    write_lines(run / "rollouts.jsonl", turns(1, text=EVIL))
    build(run)
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    parsed = assert_page_harmless(page)
    assert len([name for _, name, _ in parsed.attributes if name == "src"]) == 4
    # 10 turns with completion, answer and prompt; of 239 scored scenarios 23 that lost most with query and response; the
    # title of the group that shares the response
    assert page.count("&lt;script&gt;alert(") == 10 * 3 + 23 * 2
    assert "日本語のユーザー" in page
    assert '<meta charset="utf-8">' in page


def test_ten_turns_of_the_last_iteration_over_all_subsets(run):
    examples = simulator_examples(run)
    assert len(examples) == 10
    assert {row["phase"] for row in examples} == {"8-simulator-2"}
    counts = [sum(row["subset_tag"] == tag for row in examples) for tag in ("german", "Theater", "korean")]
    assert sorted(counts) == [3, 3, 4]
    assert len({(row["subset_tag"], row["completion"]) for row in examples}) == 10
    assert len(simulator_examples(run, n=3)) == 3
    page_rows = simulator_examples(run, n=100)
    assert len(page_rows) == 15


def test_a_refused_model_is_named(run):
    accept = {
        "phase": "07-accept-1",
        "role": "rpm",
        "iteration": 1,
        "step": 0,
        "kept": 1.0,
        "id_remi_change_nats": -0.1,
    }
    refused = {"phase": "11-accept-2", "role": "rpm", "iteration": 2, "step": 0, "kept": 0.0}
    by_r6 = {**refused, "iteration": 3, "id_r6_change_nats": -0.7}
    write_lines(run / "metrics.jsonl", [*metrics(), accept, refused, by_r6])
    text = markdown(read_run(run))
    assert "Iteration 1: R-EMI on held-out ID changed by -0.10 nats; new model kept." in text
    assert "Iteration 3: R6 on held-out ID changed by -0.70 nats; new model refused" in text
    assert "Iteration 2: R-EMI on held-out ID could not be measured; new model refused" in text
    assert "new model refused" in console_table(run)


def test_scenarios_that_lost_most_come_with_their_row_before(run):
    losses = lost_most(read_run(run))
    remis = [row.remi for row, _ in losses]
    assert len(remis) == 10
    assert remis == sorted(remis)
    assert all(earlier.sample_id == row.sample_id for row, earlier in losses)
    assert all(row.status == "ok" for row, _ in losses)


def test_the_console_table_is_plain_and_narrow(run):
    text = console_table(run)
    assert "german" in text and "R-EMI + M" in text and "0123456789ab" in text
    table = [line for line in text.splitlines() if " -> " in line]
    assert len(table) == 16
    assert max(map(len, table)) <= 100
    assert text.isascii()


def test_the_audit_is_in_every_form_of_the_report(run):
    build(run)
    row = "| loop | fails | 87.5 [82.5, 100.0] | 87.5 | 87.5 | too_long 3 | Film & Television 88 |"
    assert row in (run / "report" / "table.md").read_text(encoding="utf-8")
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "<td>Film &amp; Television 88</td>" in page and "The reward fails:" in page
    record = json.loads((run / "report" / "results.json").read_text(encoding="utf-8"))
    assert record["audit"] == audited(0.875).to_dict()
    assert audit_table(run).splitlines()[-2:] == [
        "The reward fails:",
        "  loop: the reference is above it in 87.5% of 96 scenarios, 99.0% are asked for; least often in Film & Television, "
        "87.5%.",
    ]
    write_audit(run, audited(1.0))
    assert "The reward passes" in markdown(read_run(run)) and "The reward passes" in audit_table(run)


@pytest.mark.parametrize(
    ("gain", "words", "begins"),
    [
        (4, ["no drift beyond noise"], "No drift:"),
        (1, ["both see a gain, the first one more"], "Both scorers see a gain;"),
        (0, ["only the scorer that rewards sees a gain: the reward is being gamed"], "Drift:"),
    ],
)
def test_a_gain_that_the_second_scorer_does_not_see_is_gaming(run, gain, words, begins):
    # by the first scorer the shifted subsets gained 4 nats, by the second `gain`, so the first sees 4 - gain more; ID gained
    # nothing by either
    write_second(run, "sft", rows(0))
    write_second(run, "final", rows(gain))
    read = read_run(run)
    lead, *sentences = drift.verdicts(read)
    by_shift = {sentence.split(":")[0]: sentence for sentence in sentences}
    assert list(by_shift) == ["id", "user", "character", "dialogue"]
    for shift in ("user", "character", "dialogue"):
        assert read.excess["shifts"][shift]["likelihood_gap"]["value"] == pytest.approx(4 - gain, abs=0.8)
        assert any(word in by_shift[shift] for word in words)
        # ID cancels up to its jitter: R-EMID fell by 4 and by `gain`
        assert read.excess["shifts"][shift]["remid"]["value"] == pytest.approx(gain - 4, abs=1.6)
    assert "no drift beyond noise" in by_shift["id"]
    assert lead.startswith(begins)
    assert gain == 4 or lead.endswith("on user, character, dialogue.")


def test_the_second_scorer_is_in_every_form_of_the_report(run):
    write_second(run, "sft", rows(0))
    write_second(run, "final", rows(1))
    build(run)
    table = (run / "report" / "table.md").read_text(encoding="utf-8")
    assert "## By a second scorer, which rewards nothing" in table
    assert "First scorer 0123456789ab, second scorer eeeeeeeeeeee." in table
    assert (
        "| shift |  | R-EMI + M, first | second | first less second | R-EMID, first | second | first less second |" in table
    )
    for shift in ("id", "user", "character", "dialogue"):
        for moment in ("before", "after", "change"):
            # once in the main table, once in the second scorer's
            assert table.count(f"| {shift} | {moment} |") == 2
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "<summary>By a second scorer, which rewards nothing</summary>" in page and "<th>first less second</th>" in page
    assert "Both scorers see a gain; the one" in page and "Both scorers see a gain; the one" in console_table(run)
    second = json.loads((run / "report" / "results.json").read_text(encoding="utf-8"))["second_scorer"]
    assert second["after"]["scorer"] == "e" * 64 and second["first_less_second"]["model"] == "first - second"
    # before, both have the very same rows, of which 19 on ID are scored
    same = second["correlations"]["id"]["before"]
    assert (same["value"], same["n"]) == (1.0, 19)
    assert 0.5 < second["correlations"]["user"]["after"]["value"] < 1


def test_what_two_scorers_cannot_be_compared_by_is_said(run):
    assert drift.verdicts(read_run(run)) == [] and json.loads(results(read_run(run)))["second_scorer"] is None
    write_second(run, "sft", rows(0))
    assert "cannot be compared" in drift.verdicts(read_run(run))[0], "after was measured by one scorer alone"
    write_second(run, "final", rows(4), scorer="d" * 64)
    assert "cannot be compared" in drift.verdicts(read_run(run))[0], "the second scorer is another one after than before"
    for name in ("final.json", "final.jsonl", "final-second.jsonl"):
        (run / "evaluation" / name).unlink()
    assert drift.verdicts(read_run(run)) == [
        "Whether the two scorers see the same gain will be said after the last evaluation."
    ]
    assert "| user | before |" in markdown(read_run(run)).split("## By a second scorer")[1]


def test_a_run_without_an_audit_says_so(run):
    (run / "evaluation" / "audit.json").unlink()
    assert read_run(run).missing == ["The audit of the reward (evaluation/audit.json) has not been made yet."]
    assert json.loads(results(read_run(run)))["audit"] is None
    assert "## Audit" not in markdown(read_run(run))
    with pytest.raises(DataError, match="not been audited yet; run coevo audit --resume"):
        audit_table(run)


def test_an_unfinished_run_says_what_is_missing(run):
    (run / "evaluation" / "final.json").unlink()
    (run / "evaluation" / "final.jsonl").unlink()
    written = {path.name for path in build(run)}
    assert "remid_by_subset.png" in written
    for text in ((run / "report" / "table.md").read_text(), (run / "report" / "report.html").read_text()):
        assert "after co-evolution (evaluation/final.json) has not been made yet" in text
    assert "| german | before |" in (run / "report" / "table.md").read_text()
    assert "has not been made yet" in console_table(run)


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "resolved.yaml").write_text("name: begun\n", encoding="utf-8")
    assert {path.name for path in build(tmp_path)} == {"table.md", "results.json", "report.html"}
    text = console_table(tmp_path)
    assert "Nothing has been measured yet." in text
    assert "No turn of a simulator has been logged yet." in text
    assert simulator_examples(tmp_path) == []


def test_nulls_and_sparse_rows_are_shown_as_such(run):
    # all German responses truncated after; metrics and turns with keys or values missing
    after = [
        Row(row.sample_id, "german", "p", "q", "", "ref", "truncated") if row.subset_tag == "german" else row
        for row in rows(4)
    ]
    write_evaluation(run, "final", after)
    write_lines(run / "metrics.jsonl", [*metrics(), {"phase": "x", "role": "rpm", "iteration": 3, "step": 0, "kl": None}])
    write_lines(run / "rollouts.jsonl", [{"role": "simulator", "phase": "4-simulator-1", "completion": "nur das"}])
    build(run)
    table = (run / "report" / "table.md").read_text(encoding="utf-8")
    assert "| german | after | 0 of 20 | n/a | n/a | n/a | n/a | n/a |" in table
    assert "nur das" in (run / "report" / "report.html").read_text(encoding="utf-8")


def test_a_half_written_last_line_is_not_an_error_and_a_broken_one_is(run):
    path = run / "metrics.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + '{"phase": "08-r', encoding="utf-8")
    assert len(read_run(run).metrics) == len(metrics())
    path.write_text('{"phase": \n' + whole, encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics.jsonl, line 1: not valid JSON"):
        read_run(run)


def test_not_a_run_folder(tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        build(tmp_path)


# --- runs beside each other -------------------------------------------------------------------------------------------


@pytest.fixture
def other(run):
    """A run of another recipe whose shifted subsets lost 3 nats less than those of `run`, by the same scorer."""
    folder = run.with_name("other")
    shutil.copytree(run, folder)
    (folder / "resolved.yaml").write_text("name: other\nseed: 0\nloop: {iterations: 3}\n", encoding="utf-8")
    write_evaluation(folder, "final", rows(7))
    return folder


def test_a_run_is_set_against_the_first_by_the_rules_of_before_and_after(run, other):
    said = comparison([run, other])
    assert "loop.iterations" in said and "small-world" not in said, "the name is no difference"
    as_one = run.with_name("as-one")
    shutil.copytree(run, as_one)
    write_evaluation(as_one, "sft", rows(4))
    write_evaluation(as_one, "final", rows(7))
    expected = "\n".join(f"- {line}" for line in verdicts(read_run(as_one)))
    assert said.endswith(f"other against run (before: run; after: other; paired by scenario):\n{expected}")
    assert expected.count("R-EMID fell.") == 3
    assert "R-EMID fell" not in comparison([other, run]).split("run against other")[1], "the other way round it rose"


def test_nats_of_runs_that_were_measured_otherwise_are_not_compared(run, other):
    write_evaluation(other, "final", rows(7), scorer="f" * 64)
    said = comparison([run, other])
    assert "measured by another scorer, so their nats cannot be set against each other" in said
    assert "over its own scenarios. Nats not to be compared with those of run, see below: other.\n" in said
    write_evaluation(other, "final", [row for row in rows(7) if not row.sample_id.startswith("german")])
    assert "measured by other test scenarios, so" in comparison([run, other])
    write_evaluation(other, "final", rows(7))
    (other / "environment.json").write_text('{"data": {"path": "x.json", "sha256": "0"}}', encoding="utf-8")
    assert "measured by another data file, so" in comparison([run, other])


def test_what_cannot_be_compared_is_refused(run, other, capsys):
    assert cli.main(["compare", str(run)]) == 2 and "one run to compare" in capsys.readouterr().err
    assert cli.main(["compare", str(run), f"{run}/."]) == 2 and "is named twice" in capsys.readouterr().err
    for name in ("final.json", "final.jsonl"):
        (other / "evaluation" / name).unlink()
    assert cli.main(["compare", str(run), str(other)]) == 2
    assert f"Finish it: coevo train --resume {other}" in " ".join(capsys.readouterr().err.split())


def test_a_hostile_recipe_is_text_in_a_comparison(run, other):
    (other / "resolved.yaml").write_text(json.dumps({"name": "x", "seed": "\x1b[31m" + "x" * 99}), encoding="utf-8")
    said = comparison([run, other])
    assert "\x1b" not in said and "\\x1b[31mxxx" in said and "…" in said
