"""Loops and echoes: a status in every evaluation, never a number; and what M above 0 means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coevo.config import Evaluation
from coevo.data import BATTERIES, world
from coevo.diagnosis.assemble import diagnose
from coevo.scoring.evaluate import measure
from coevo.scoring.guards import fault
from coevo.scoring.real_text import seen
from coevo.scoring.scorer import Ask
from coevo.scoring.words import coverage_words, likelier_words
from coevo.types import Response, Score

XS = [*world.generate("IDTest", 8, seed=0), *world.generate("OOD1Test", 20, seed=0)]
CONFIG = Evaluation(k=2, resamples=50)
LOOP = "I am not a devil. " * 12


class Short:
    """Finds short and repeated text likely, as language models do: a nat a distinct word, half of it in its own context."""

    version = "short"

    def score(self, asks: list[Ask]) -> list[Score]:
        return [Score(-len(set(ask.text.split())) * (0.5 if not ask.drop else 1.0) or -0.1, 9) for ask in asks]


def answers(text_of) -> list[Response]:
    return [Response(x.sample_id, text_of(x), "mine") for x in XS]


def test_a_loop_and_an_echo_have_a_status_and_no_number() -> None:
    said = {0: LOOP, 1: XS[1].query, 2: XS[3].reference}
    place = {x.sample_id: at for at, x in enumerate(XS)}
    result = measure(Short(), XS, answers(lambda x: said.get(place[x.sample_id], x.reference)), CONFIG, 0)
    assert [row.status for row in result.rows[:4]] == ["loop", "echo", "ok", "ok"]
    assert result.rows[0].remi != result.rows[0].remi and result.rows[0].response == LOOP, "the text stays, without a number"
    assert result.summary["subsets"]["IDTest"]["statuses"] == {"loop": 1, "echo": 1, "ok": 6}


def test_loops_that_the_scorer_finds_likely_move_no_mean() -> None:
    right = measure(Short(), XS, answers(lambda x: x.reference), CONFIG, 0)
    looped = measure(Short(), XS, answers(lambda x: LOOP if x.sample_id.endswith("1") else x.reference), CONFIG, 0)
    assert any(row.status == "loop" for row in looped.rows)
    for tag, entry in looped.summary["subsets"].items():
        assert entry["remi"] == {**right.summary["subsets"][tag]["remi"], "value": 0.0}


def test_a_model_that_loops_is_not_acquitted() -> None:
    result = measure(Short(), XS, answers(lambda x: LOOP), CONFIG, 0)
    words = coverage_words(result.rows)
    assert words[0].startswith("0 of 28 responses could be scored and the others are in no mean: loop 28")
    assert "28 of them mostly repeat themselves" in words[1]
    verdict = diagnose({"mine": result}, XS, {}, CONFIG, 0)["models"]["mine"]["verdict"]
    assert not any("No shift hurts" in line or "at the references' level" in line for line in verdict)


def test_what_the_reference_itself_repeats_or_copies_is_free() -> None:
    x = XS[0]
    assert fault(LOOP, x.reference, list(seen(x))) == "loop"
    assert fault(LOOP, LOOP, list(seen(x))) == "ok"
    assert fault(x.query, x.reference, list(seen(x))) == "echo"
    assert fault(x.query, x.query, list(seen(x))) == "ok"


def test_the_worlds_references_are_none_and_its_loops_and_echoes_are() -> None:
    for case in BATTERIES["world"](XS, 0):
        x, sources = case.scenario, list(seen(case.scenario))
        found = {name: fault(text, x.reference, sources) for name, text in case.bad.items() if text}
        assert found["loop"] == "loop" and found["query_echoed"] == "echo"
        # a reply that fits anyone may be what the agent has said before
        assert {found[name] for name in found if name not in ("loop", "query_echoed", "fits_anyone")} == {"ok"}
        assert all(fault(text, x.reference, sources) == "ok" for text in (x.reference, *case.good))


def entry(value: float, low: float, high: float) -> dict:
    return {"register_gap": {"value": value, "low": low, "high": high}, "mi_reference": {"value": 20.0}}


@pytest.mark.parametrize(("low", "said"), [(80.0, True), (-1.0, False), (12.0, False)])
def test_m_far_above_0_is_said_to_be_no_praise(low: float, said: bool) -> None:
    words = likelier_words({"id": entry(100.0, low, 120.0), "user": entry(-3.0, -4.0, -2.0)}, "sum")
    assert bool(words) is said
    if said:
        assert words[0].startswith("M is far above 0 at home (100.00 [80.00, 120.00]): to this scorer")
        assert "not better" in words[0] and "user" not in words[0]


def test_only_whole_responses_are_looked_at() -> None:
    cut = [replace(r, status="truncated") for r in answers(lambda x: LOOP)]
    assert {row.status for row in measure(Short(), XS, cut, CONFIG, 0).rows} == {"truncated"}
