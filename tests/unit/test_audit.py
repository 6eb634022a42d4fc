"""The audit, with scorers in closed form: the world's exact density, and the same with one thing taken from it."""

import json
import math
from collections import Counter
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest

from coevo.config import Audit, RealText, Recipe, RewardWeights
from coevo.data import BATTERIES, Case, world
from coevo.data.battery import MEMBERS
from coevo.errors import ConfigError, ScoreError
from coevo.loop.phases import run_audit
from coevo.maths.stats import Measure, wilson
from coevo.progress import Silent
from coevo.prompts import ALL
from coevo.rewards import audit as audit_module
from coevo.rewards.audit import audit
from coevo.rewards.verdict import PARTS, REWARD, Agreement, Member, Verdict, cells, conclusion, heading, table
from coevo.runs.folder import RunFolder
from coevo.scoring.real_text import draw_others
from coevo.types import Reward, Scenario, Score, Turn

N = 48
CASES = BATTERIES["world"](world.generate("ShiftTrain", N, seed=5), 0)
"""Four scenarios of each of the twelve tags."""
DEFAULT = RewardWeights()
INFORMATION = RewardWeights(information=1, register_gap=0)
LIKELIHOOD = RewardWeights(information=0, register_gap=1)


@cache
def slot_marginals(tag: str) -> dict[str, dict[str, float]]:
    """p(symbol | tag) by slot: within a tag the attributes are independent and uniform, so a mean over one of them."""
    values = world.support(tag)
    marginals = {}
    for slot, attribute in world.SLOT_ATTRIBUTE.items():
        mixed: Counter[str] = Counter()
        for value in values[attribute]:
            attributes = world.Attributes(**{name: values[name][0] for name in values} | {attribute: value})
            for symbol, p in world.slot_distribution(attributes, slot).items():
                mixed[symbol] += p / len(values[attribute])
        marginals[slot] = dict(mixed)
    return marginals


@cache
def log_density(attributes: world.Attributes, text: str) -> float:
    return world.log_density(attributes, text)


class Exact:
    """log p(y|x), and log p(y): the mean over the twelve tags of the product of the slots' marginals."""

    version = "exact-density"

    def score(self, asks):
        return [self._one(ask) for ask in asks]

    def _one(self, ask):
        if not ask.text:
            return Score(math.nan, 0, "empty")
        nats = self.marginal(ask.text) if ask.drop == ALL else self.likelihood(ask.scenario, ask.text)
        return Score(nats, 5)

    def likelihood(self, scenario, text):
        return log_density(world.parse_scenario(scenario), text)

    def marginal(self, text):
        parsed = world.parse_response(text)
        symbols = list(zip(world.SLOTS, parsed.symbols, strict=True))
        tags = world.SPLITS["ShiftTrain"]
        p = sum(math.prod(slot_marginals(tag)[slot][symbol] for slot, symbol in symbols) for tag in tags) / len(tags)
        # every junk piece costs the same in any context: log(ε/(V+1)) of the largest inventory, V = 144
        return math.log(p) + parsed.junk * math.log(0.02 / 145)


class Blind(Exact):
    """Sees nothing of the character: the catchphrase is uniform over its V + 1 symbols in every context."""

    def likelihood(self, scenario, text):
        attributes = world.parse_scenario(scenario)
        phrase = world.parse_response(text).symbols[world.SLOTS.index("catchphrase")]
        known = math.log(world.slot_distribution(attributes, "catchphrase")[phrase])
        return super().likelihood(scenario, text) - known - math.log(len(world.INVENTORY["catchphrase"]) + 1)

    def marginal(self, text):
        return -100.0


class Table:
    """log q by text, the same in every context; -9 alone, so that information and likelihood rank alike."""

    version = "table"

    def __init__(self, nats):
        self._nats = nats

    def score(self, asks):
        return [
            value if isinstance(value := -9.0 if ask.drop else self._nats[ask.text], Score) else Score(value, 1)
            for ask in asks
        ]


@pytest.fixture(scope="module")
def exact():
    return {
        name: audit(Exact(), CASES, weights, Audit(), seed=0)
        for name, weights in (("default", DEFAULT), ("information", INFORMATION), ("likelihood", LIKELIHOOD))
    }


def test_the_exact_density_passes_with_the_default_weights(exact):
    verdict = exact["default"]
    assert verdict.passed and verdict.failures == []
    assert (verdict.n, verdict.unscored, tuple(verdict.members)) == (N, 0, MEMBERS)
    assert all(member.above[REWARD].value == 1.0 for member in verdict.members.values())
    assert verdict.agreement[REWARD].within.low > 0.9 and verdict.agreement[REWARD].overall > 0.9
    assert exact["likelihood"].passed, "with the exact density plain likelihood ranks right slots by itself"


def test_information_alone_fails_even_with_the_exact_density(exact):
    # method, section 3: with the learned marginal, what is equally unlikely everywhere earns D1 = 0. So padding costs
    # nothing: p(junk|x) = p(junk), D1(y* + padding) = D1(y*), a tie in every scenario, and a tie is not above.
    verdict = exact["information"]
    assert not verdict.passed
    assert verdict.members["padding"].above[REWARD].value == 0.0
    # and an unreadable slot, for which p(…|x) = p(…), earns 0, where a wrong phrase earns log(ε/(V+1)) - log p(phrase) < 0:
    # gibberish stands above replies that are half right
    assert verdict.agreement[REWARD].within.high < 0.85
    assert "rank agreement with the share of right slots" in verdict.failures[-1]
    # cutting off a slot that is noise in y* itself gains as well; all else D1 sees, and is gamed by going round it
    for name in set(MEMBERS) - {"padding", "truncated"}:
        assert verdict.members[name].above[REWARD].value == 1.0, name


def test_the_parts_alone_are_the_reward_with_one_weight(exact):
    for name, part in (("information", "information"), ("likelihood", "register_gap")):
        for member, entry in exact[name].members.items():
            assert entry.above[REWARD] == exact["default"].members[member].above[part]
        assert exact[name].agreement[REWARD] == exact["default"].agreement[part]


def test_a_scorer_that_does_not_see_the_character_fails_where_that_slot_is_spoilt():
    verdict = audit(Blind(), CASES, LIKELIHOOD, Audit(), seed=0)
    place = world.SLOTS.index("catchphrase")
    # y* and the spoilt reply tie exactly where the one slot made wrong is the catchphrase: about a fifth
    seen = [
        world.parse_response(case.bad["one_slot_wrong"]).symbols[place]
        == world.parse_response(case.scenario.reference).symbols[place]
        for case in CASES
    ]
    member = verdict.members["one_slot_wrong"]
    assert member.above[REWARD].value == sum(seen) / N and 0.6 < sum(seen) / N < 0.95
    assert not verdict.passed and "one slot wrong: the reference is above it in" in verdict.failures[0]
    by_tag = Counter(case.scenario.subset_tag for case, ok in zip(CASES, seen, strict=True) if ok)
    assert member.subsets == {tag: by_tag[tag] / 4 for tag in world.SPLITS["ShiftTrain"]}
    # two slots spoilt are two different ones, so one of them is seen
    assert verdict.members["two_slots_wrong"].above[REWARD].value == 1.0


def small(bad, graded=None, name="a", tag="IDTrain"):
    x = Scenario(name, "IDTrain", tag, "Ann", "Ada", (Turn("user", "Who?"),), "I am Ada.")
    return Case(x, bad, graded or {})


def test_what_cannot_be_scored_is_below_by_its_status():
    scores = {"I am Ada.": -50.0, "": Score(math.nan, 0, "empty"), "no no": Score(math.nan, 9, "too_long")}
    verdict = audit(Table(scores), [small({"empty": "", "loop": "no no"})] * 3, DEFAULT, Audit(), seed=0)
    assert verdict.members["empty"].statuses == {"empty": 3} and verdict.members["loop"].statuses == {"too_long": 3}
    assert all(share.value == 1.0 for member in verdict.members.values() for share in member.above.values())
    assert verdict.passed and not verdict.agreement
    assert "too_long 3" in table(verdict)


def test_the_agreement_with_the_reasoning_is_audited_where_it_counts():
    # Table has -9 without the reasoning, for one token: evidence is 8 for y*, 7 for the loop, 8.5 for the padding. The match
    # is 1 for y*, exp(-1) for the loop, and 1 for the padding, since more evidence than the reference's earns no more.
    nats = {"I am Ada.": -1.0, "eh": -2.0, "well": -0.5}
    cases = [small({"loop": "eh", "padding": "well"})] * 3
    verdict = audit(Table(nats), cases, RewardWeights(information=0, register_gap=0, agreement=1), Audit(), seed=0)
    assert {name: member.above["agreement"].value for name, member in verdict.members.items()} == {
        "loop": 1.0,
        "padding": 0.0,
    }
    assert all(member.above[REWARD] == member.above["agreement"] for member in verdict.members.values())
    assert verdict.parts == ("information", "register_gap", "agreement") and "1 × agreement" in heading(verdict)
    plain = audit(Table(nats), cases, DEFAULT, Audit(), seed=0)
    assert plain.parts == ("information", "register_gap") and "agreement" not in plain.members["loop"].above
    assert "agreement" not in table(plain).splitlines()[0]


def test_a_reference_that_cannot_be_scored_is_left_out_and_counted():
    scores = {"I am Ada.": -1.0, "eh": -2.0, "far too long": Score(math.nan, 9, "too_long")}
    long = small({"loop": "eh"})
    long = Case(Scenario("b", "T", "T", "u", "c", (Turn("user", "?"),), "far too long"), long.bad)
    verdict = audit(Table(scores), [small({"loop": "eh"}), long], DEFAULT, Audit(), seed=0)
    assert (verdict.n, verdict.unscored, verdict.members["loop"].n) == (1, 1, 1)
    assert "1 more have a reference that cannot be scored" in heading(verdict)
    for cases in ([long], []):
        with pytest.raises(ScoreError, match=rf"none of {len(cases)} references could be scored"):
            audit(Table(scores), cases, DEFAULT, Audit(), seed=0)


def test_a_tie_is_not_above_and_a_constant_reward_agrees_with_nothing():
    scores = dict.fromkeys(("I am Ada.", "eh", "oh"), -3.0)
    graded = {"I am Ada.": 1.0, "oh": 0.0, "eh": 0.5}
    verdict = audit(Table(scores), [small({"loop": "eh"}, graded)] * 2, DEFAULT, Audit(), seed=0)
    assert verdict.members["loop"].above[REWARD].value == 0.0
    assert verdict.agreement[REWARD] == Agreement(Measure(0.0, 0.0, 0.0), 0.0, 0.0)
    assert len(verdict.failures) == 2


def test_agreement_is_within_scenarios_and_overall():
    # each scenario ranks its own answers rightly (1), but b's rewards lie below a's: ranks of the rewards
    # (a: 6 5 4, b: 3 2 1) against shares (1 ½ 0, 1 ½ 0) with ranks (5½ 3½ 1½ twice):
    # centred (2.5 1.5 .5 -.5 -1.5 -2.5)·(2 0 -2 2 0 -2) = 5-1-1+5 = 8; norms √17.5 and √16; 8/√280 = 0.478
    graded_a, graded_b = {"I am Ada.": 1.0, "a1": 0.5, "a2": 0.0}, {"b0": 1.0, "b1": 0.5, "b2": 0.0}
    x = Scenario("b", "IDTrain", "IDTrain", "u", "c", (Turn("user", "?"),), "b0")
    scores = {"I am Ada.": -1.0, "a1": -2.0, "a2": -3.0, "b0": -4.0, "b1": -5.0, "b2": -6.0}
    scores[""] = Score(math.nan, 0, "empty")
    cases = [small({"empty": ""}, graded_a), Case(x, {"empty": ""}, graded_b)]
    found = audit(Table(scores), cases, LIKELIHOOD, Audit(), seed=0)
    assert found.agreement[REWARD].within.value == pytest.approx(1.0)
    assert found.agreement[REWARD].overall == pytest.approx(8 / math.sqrt(280))
    assert found.n_graded == 6
    assert "1.00 within scenarios and 0.48 overall, 0.90 is asked for in both" in found.failures[0]
    # relative to its reference each scenario's information starts at 0, so there the scenarios agree
    assert found.agreement["information"].overall == pytest.approx(1.0)


def test_the_battery_is_ranked_apart():
    # the ladder is in order (1); with padding, three quarters right and worth least, ranks 4 3 2 1 meet 4 2 1 3:
    # centred (1.5 .5 -.5 -1.5)·(1.5 -.5 -1.5 .5) = 2.25-.25+.75-.75 = 2, norms √5 both: 0.4
    graded = {"I am Ada.": 1.0, "half": 0.5, "none": 0.0, "padded": 0.75}
    scores = {"I am Ada.": -1.0, "half": -2.0, "none": -3.0, "padded": -40.0}
    verdict = audit(Table(scores), [small({"padding": "padded"}, graded)], DEFAULT, Audit(), seed=0)
    agreement = verdict.agreement[REWARD]
    assert (agreement.within.value, agreement.overall) == (pytest.approx(1.0), pytest.approx(1.0))
    assert agreement.with_battery == pytest.approx(0.4)
    assert verdict.passed and verdict.n_graded == 3


def test_thresholds_are_the_recipes():
    scores = {"I am Ada.": -3.0, "eh": -4.0, "oh": -2.0}
    cases = [small({"loop": "eh"}, name=str(i)) for i in range(9)] + [small({"loop": "oh"})]
    assert not audit(Table(scores), cases, DEFAULT, Audit(), seed=0).passed
    assert audit(Table(scores), cases, DEFAULT, Audit(at_least=0.9), seed=0).passed, "nine of ten are 0.9"


def test_other_right_answers_must_be_above_the_bad_ones_too():
    # in nine of ten scenarios the other right answer is worth -4 and the loop -5, in one -4 and -3.5
    scores = {"I am Ada.": -3.0, "It is I.": -4.0, "eh": -5.0, "oh": -3.5}
    cases = [replace(small({"loop": "eh"}, name=str(i)), good=("It is I.",)) for i in range(9)]
    cases += [replace(small({"loop": "oh"}), good=("It is I.", "I am Ada."))]
    verdict = audit(Table(scores), cases, DEFAULT, Audit(at_least=0.95), seed=0)
    member = verdict.members["loop"]
    assert member.above[REWARD].value == 1.0 and member.n_good == 10
    assert member.good[REWARD] == wilson(9, 10), "the worst of a scenario's right answers counts"
    assert verdict.failures[0] == ("loop: another right answer is above it in 90.0% of 10 scenarios, 95.0% are asked for")
    assert audit(Table(scores), cases, DEFAULT, Audit(at_least=0.9), seed=0).passed
    shown = table(verdict).splitlines()
    assert shown[1].endswith("another right one above") and shown[2].split()[1] == "fails"
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_dict()))) == verdict
    # one that cannot be scored is left out
    unscored = {**scores, "far too long": Score(math.nan, 9, "too_long")}
    case = replace(small({"loop": "eh"}), good=("far too long",))
    assert audit(Table(unscored), [case], DEFAULT, Audit(), seed=0).members["loop"].good == {}


def test_a_reward_that_measures_nearness_to_the_reference_fails_and_is_told_so(monkeypatch):
    # -|S - S*|, S the likelihood: the reference is worth 0 and is above everything. A right answer that is 2 nats likelier
    # is worth -2, and the bad one, half a nat less likely, -0.5
    scores = {"I am Ada.": -3.0, "It is I.": -1.0, "eh": -3.5}
    cases = [replace(small({"fits_anyone": "eh"}), good=("It is I.",))] * 20
    assert audit(Table(scores), cases, DEFAULT, Audit(), seed=0).passed
    near = lambda fit, reference, *rest: Reward(-abs(fit.likelihood - reference.likelihood))  # noqa: E731
    monkeypatch.setattr(audit_module, "rpm_reward", near)
    verdict = audit(Table(scores), cases, DEFAULT, Audit(), seed=0)
    assert verdict.members["fits_anyone"].above[REWARD].value == 1.0
    assert not verdict.passed and verdict.members["fits_anyone"].good[REWARD].value == 0.0
    assert "measures how near an answer's numbers are to the reference's, and not whether it is right" in conclusion(verdict)


def test_the_world_knows_other_right_answers(exact):
    for case in CASES:
        assert len(case.good) == 1 and case.good[0] != case.scenario.reference
        assert world.share_right(case.scenario, case.good[0]) == 1.0
    members = exact["default"].members.values()
    assert all(member.good[REWARD].value == 1.0 and member.n_good == N for member in members)
    assert exact["information"].members["padding"].good[REWARD].value < 0.99, "as with the reference, a tie in some"


def test_records_of_older_runs_are_read(exact):
    record = json.loads(json.dumps(exact["default"].to_dict()))
    for entry in record["members"].values():
        del entry["good"], entry["n_good"]
    old = Verdict.from_json(record)
    assert old.passed and not any(member.good for member in old.members.values())
    assert "another right one" not in table(old)


def test_r6_on_the_exact_density():
    weights = RealText(kind="real_text")
    others = draw_others(lambda x: True, world.generate("ShiftTrain", 60, seed=0), weights, 0)
    verdict = audit(Exact(), CASES[:24], weights, Audit(), seed=0, others=others)
    assert all(member.above[REWARD].value == 1.0 for member in verdict.members.values())
    assert all(member.good[REWARD].value == 1.0 for member in verdict.members.values())
    assert verdict.parts == ("contrast", "marginal", "shortfall", "echo", "loop", "unended")
    assert verdict.members["query_echoed"].above["echo"].value == 1.0
    assert verdict.members["loop"].above["loop"].value == 1.0
    assert "0.3 × marginal" in heading(verdict) and "3 negatives" in heading(verdict)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_what_is_asked_for_hangs_on_the_data():
    assert (Audit().share("world"), Audit().share("file"), Audit(at_least=0.5).share("file")) == (0.99, 0.9, 0.5)
    assert Audit().on_failure == "stop"


def test_progress_counts_scenarios():
    told = []
    audit(Table({"I am Ada.": -1.0, "eh": -2.0}), [small({"loop": "eh"})] * 70, DEFAULT, Audit(), 0, told.append)
    assert told == [32, 32, 6]


def test_the_record_reads_back_as_it_was(exact):
    for verdict in exact.values():
        record = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
        assert Verdict.from_json(record) == verdict
        assert (record["passed"], record["failures"]) == (verdict.passed, verdict.failures)


def made(share: float, within: float) -> Verdict:
    above = {name: Measure(share, share - 0.05, share + 0.02) for name in (REWARD, *PARTS)}
    agreement = {name: Agreement(Measure(within, within - 0.01, within + 0.01), 0.95, 0.5) for name in (REWARD, *PARTS)}
    members = {
        "loop": Member(100, {}, above, {"korean": 0.5, "german": 1.0}),
        "empty": Member(100, {"empty": 100}, above, {"x": 1.0}),
    }
    return Verdict("c0ffee" * 8, {"information": 1.0, "register_gap": 0.5}, 0.99, 0.9, 100, 0, members, agreement, 2700)


def test_the_table_says_what_fails_and_where():
    shown = table(made(0.95, 0.85)).splitlines()
    assert shown[0] == (
        "Reward: 1 × information + 0.5 × register_gap. 100 scenarios, 2,700 graded answers; scorer c0ffeec0ffee."
    )
    assert shown[2].split() == ["loop", "fails", "95.0", "[90.0,", "97.0]", "95.0", "95.0", "-", "korean", "50"]
    assert shown[3].split() == ["empty", "fails", "95.0", "[90.0,", "97.0]", "95.0", "95.0", "empty", "100", "-"]
    assert shown[4].split() == ["agreement,", "within", "fails", "0.85", "[0.84,", "0.86]", "0.85", "0.85", "-", "-"]
    assert shown[5].split() == ["agreement,", "overall", "0.95", "0.95", "0.95", "-", "-"]
    assert shown[6].split() == ["within,", "battery", "too", "0.50", "0.50", "0.50", "-", "-"], "told, and no threshold"
    assert "least often in korean, 50.0%" in shown[8]
    assert len({len(row) for row in cells(made(0.95, 0.85))}) == 1


def test_the_conclusion_of_a_reward_that_passes():
    first, *open_ = conclusion(made(1.0, 0.95)).splitlines()
    assert first == "The reward passes: the reference is above each bad answer in at least 99%, and agreement 0.90."
    # its subset korean has 50 %, and the intervals begin at 95 %
    assert "the 95 % intervals reach down to 95.0%" in open_[0] and "50.0% in korean (loop)" in open_[1]


def phase_context(tmp_path, scorer, **settings):
    """What the phase needs of a run, with a scorer in closed form."""
    recipe = Recipe(name="x", audit=Audit(scenarios=24, **settings))
    return SimpleNamespace(
        recipe=recipe,
        folder=RunFolder.create(tmp_path / "run", recipe),
        material=SimpleNamespace(real_turns=world.generate("ShiftTrain", 30, seed=1)),
        beside=None,
        progress=Silent(),
        fits=lambda role, x: True,
        scorer=lambda name: scorer,
        phase_name=lambda kind: f"02-{kind}",
    )


PHASE = SimpleNamespace(name="03-audit", iteration=None)


def test_the_phase_writes_what_it_found_and_finishes(tmp_path):
    context = phase_context(tmp_path, Exact())
    assert run_audit(context, PHASE, False) == {"passed": True}
    verdict = Verdict.from_json(json.loads((tmp_path / "run" / "evaluation" / "audit.json").read_text()))
    assert verdict.passed and (verdict.n, verdict.scorer) == (24, "exact-density")
    assert context.folder.facts("03-audit") == {"passed": True}


def test_the_phase_stops_a_recipe_whose_reward_fails(tmp_path):
    context = phase_context(tmp_path, Blind())
    with pytest.raises(ConfigError, match=r"(?s)one slot wrong +fails.*loop\.rpm\.weights.*scorer_sft.*on_failure=warn"):
        run_audit(context, PHASE, False)
    assert not json.loads((tmp_path / "run" / "evaluation" / "audit.json").read_text())["passed"], "and the table is kept"
    assert context.folder.facts("03-audit") is None, "a phase that stopped the run is not done"


def test_a_warning_goes_on_and_says_so(tmp_path, monkeypatch):
    context = phase_context(tmp_path, Blind(), on_failure="warn")
    said = []
    monkeypatch.setattr(context.progress, "say", said.append, raising=False)
    assert run_audit(context, PHASE, False) == {"passed": False}
    assert "The reward fails" in said[0] and "one slot wrong" in said[0] and "on_failure=warn" in said[0]
    assert context.folder.facts("03-audit") == {"passed": False}
