"""The calibration: estimates that are judged rightly, with a scorer that knows the truth as well as without one."""

import functools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from coevo import calibration
from coevo.calibration import report
from coevo.calibration.attribution import attribution, judged
from coevo.calibration.bounds import bounds
from coevo.calibration.bracket import bracket, pointwise_estimates
from coevo.calibration.cache import Cache
from coevo.calibration.coverage import circle, coverage
from coevo.calibration.learned import learned
from coevo.calibration.responders import FAILURES, SHIFTED, dialled
from coevo.calibration.settings import QUICK, Settings
from coevo.cli import main
from coevo.data import world
from coevo.data.world import draws as exact_draws
from coevo.data.world import exact
from coevo.data.world.draws import read_contexts, read_replies
from coevo.data.world.exact import POOL, only
from coevo.data.world.responders import REFERENCE, SYMBOLS, Fault, Responder
from coevo.errors import ConfigError, ScoreError
from coevo.maths.information import full_design, infonce, l1out
from coevo.prompts import ALL
from coevo.types import Score

TINY = Settings(
    sizes=(60,),
    negatives=(4,),
    grid_draws=1,
    main_size=60,
    main_draws=2,
    coverage_sizes=(10,),
    coverage_negatives=(4,),
    coverage_draws=2,
    resamples=50,
    random_responders=1,
    scenarios=2,
    k=1,
)


def unheard(done, total):
    assert 0 < done <= total


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "shelf", TINY)


# --- estimates ------------------------------------------------------------------------------------------------------


def test_summands_are_the_estimates():
    design = full_design(np.random.default_rng(0).normal(-20, 4, size=(9, 9)))
    summands = pointwise_estimates(design, marginal=design[:, 0] - 2.0)
    assert summands["l1out"].mean() == pytest.approx(l1out(design))
    assert summands["infonce"].mean() == pytest.approx(infonce(design))  # from the other log-mean-exp, or in one: the same
    assert summands["middle"].mean() == pytest.approx((l1out(design) + infonce(design)) / 2)
    assert summands["learned_marginal"].tolist() == pytest.approx([2.0] * 9)


def chi(law, tag):
    """E p(y|x)/p(y) - 1, a product over independent slots."""
    product = 1.0
    for slot in world.SLOTS:
        table = law.table(tag, slot)
        product *= (table**2 / table.mean(axis=0)).sum(axis=1).mean()
    return product - 1


def test_middle_has_no_error_of_first_order():
    # With m = mean_j p(y|x_j)/p(y) over K other contexts, E m = 1 and Var m = chi/K, so M2 - I = -E log m = chi/2K. With
    # the positive, which is chi above 1 on average, in the mean over K + 1, -E log m = -chi/(K+1) + chi/2(K+1): M3 - I =
    # -chi/2(K+1). Here chi is about 24 and K = 399: +-0.030. M4 takes out what the draws of (x, y) alone bring.
    law, n, draws = Responder("near 0.5", Fault(0.5, "near")), 400, 40
    first_order = chi(law, "IDTest") / (2 * n)
    errors = {"l1out": [], "infonce": [], "middle": []}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        contexts = exact_draws.draw_contexts(only("IDTest"), n, rng)
        replies = exact_draws.draw_replies(law, contexts, rng)
        marginal = exact_draws.log_marginal(law, only("IDTest"), replies)
        summands = pointwise_estimates(full_design(exact_draws.log_matrix(law, contexts, replies)), marginal)
        for name, values in errors.items():
            values.append((summands[name] - summands["learned_marginal"]).mean())
    noise = {name: np.std(values) / math.sqrt(draws) for name, values in errors.items()}
    assert 0.02 < first_order < 0.05
    assert abs(np.mean(errors["l1out"]) - first_order) < 4 * noise["l1out"] + 0.2 * first_order
    assert abs(np.mean(errors["infonce"]) + first_order) < 4 * noise["infonce"] + 0.2 * first_order
    assert abs(np.mean(errors["middle"])) < 4 * noise["middle"] + 0.1 * first_order


def test_the_span_holds_the_information_and_m1_its_own_sum(cache):
    # of three laws with I above, below and well below log N - 2 = 2.1: N = 60 is small, so M1 is judged by its error alone
    result = bracket(replace(TINY, main_draws=10, resamples=200), cache, unheard)
    by_name = {(case["law"], case["negatives"]): case for case in result["cases"]}
    assert len(by_name) == 14
    assert min(case["main"]["span_holds"] for case in by_name.values()) == 1.0
    near = by_name["near 0.5", "subset"]
    assert near["information"] == pytest.approx(1.726, abs=1e-3)
    assert near["main"]["nearer_error"] < 0.2 and near["main"]["club_error"] < 0.2
    reference = by_name["reference", "pool"]["grid"][-1]["mean"]
    assert reference["infonce"] <= math.log(60) < 10.506 < reference["l1out"] < reference["club"]


def test_intervals_hold_the_truth_about_as_often_as_they_say(cache):
    # 32 draws of 80 cases and measures; a share of 95 % has a standard deviation of 0.039 in a case, and less on average,
    # although the cases of one draw depend on each other. At n = 40 percentile intervals are a little narrow.
    settings = replace(TINY, coverage_sizes=(40,), coverage_draws=32, resamples=200)
    rows = coverage(settings, cache, unheard)["rows"]
    for estimate in ("club", "learned_marginal"):
        shares = [row["covers_truth"] for row in rows if row["estimate"] == estimate]
        assert 0.90 <= np.mean(shares) <= 0.98
    # M1's expectation, which depends on where its negatives come from, is met: within 4 standard errors of the mean
    for row in rows:
        if row["estimate"] == "club":
            assert abs(row["mean"] - row["truth"]) < 4.5 * row["sd"] / math.sqrt(32) + 1e-6, row


def test_a_circle_gives_every_context_equally_many_replies():
    rng = np.random.default_rng(0)
    where = circle([np.arange(0, 6), np.arange(6, 12)], 3, 0, rng)
    assert where.shape == (12, 4) and where[:, 0].tolist() == list(range(12))
    assert np.bincount(where[:, 1:].ravel()).tolist() == [3] * 12
    assert (where[:6] < 6).all() and (where[6:] >= 6).all()


# --- bound ----------------------------------------------------------------------------------------------------------


def b1(entropy, components, responses):
    return math.sqrt(2 / 3) * entropy * sum(math.sqrt(d) for d in components) + 8 * sum(responses) ** 0.25


def test_b1_of_the_references_is_by_hand(cache):
    # no divergence of responses, one component at ln 2, H = 2 H(Y*|x): sqrt(2/3) * 2 * 2.229 * sqrt(ln 2) = 3.03
    result = bounds(replace(TINY, random_responders=0), cache, unheard)
    slight = {row["tag"]: row for row in result["rows"] if row["responder"] == "guesses under shift"}
    assert set(slight) == set(SHIFTED)
    home, away = only("IDTest"), only("Theater")
    law = next(law for law in dialled() if law.name == "wide")
    row = next(row for row in result["rows"] if (row["responder"], row["tag"]) == ("wide", "Theater"))
    parts = [exact.response_jsd(law, home), exact.response_jsd(law, away)]
    entropy = exact.highest_entropy(law, {"IDTest": 0.5, "Theater": 0.5})
    assert row["b1"] == pytest.approx(b1(entropy, [math.log(2)], parts))
    assert row["remid"] == pytest.approx(exact.remi(law, home) - exact.remi(law, away))
    assert all(row["reached"] <= 1 for row in result["rows"])


def test_b1_is_all_but_reached_on_the_world_by_a_responder_that_guesses(cache):
    # R-EMI is 0 at home and -I = -8.868 where all is guessed; replies are distributed as the references in both, so that
    # the last term is 0. H = H(Y*|x) + H(Y) = 2.229 + 11.098: B1 = sqrt(2/3) * 13.33 * sqrt(ln 2) = 9.06.
    row = next(
        row
        for row in bounds(replace(TINY, random_responders=0), cache, unheard)["rows"]
        if (row["responder"], row["tag"]) == ("guesses under shift", "Theater")
    )
    assert row["remid"] == pytest.approx(8.868, abs=1e-3)
    assert row["b1"] == pytest.approx(9.06, abs=0.01)


def test_b1_is_no_bound_for_noiseless_references():
    # Context x = (c, k): c is `home` under P and `away` under Q, k uniform over m values; y* = k. The responder says k at
    # home and guesses away. I(X;Y*) = log m on both; I(X;Y_theta) = log m on P and 0 on Q: R-EMID = log m. Replies are
    # uniform over m everywhere, so the last term is 0; only c has shifted, by ln 2; H(Y*|x) = 0 and H(Y_theta|x) <= log m.
    # B1 = sqrt(2/3) log m sqrt(ln 2) = 0.68 log m. It needs P(c | rest) = Q(c | rest), which a shift of c alone cannot have.
    m = 16
    remid = (math.log(m) - math.log(m)) - (0 - math.log(m))
    assert remid > b1(math.log(m), [0, math.log(2), 0], [0, 0])
    # what holds: |E_P h - E_Q h| <= TV * (max h - min h) for h(x) = H(Y_theta|x) - H(Y*|x), here 1 * log m
    assert remid <= 1.0 * math.log(m) + 1e-12


def test_b1_is_no_bound_for_one_reply_to_everything():
    # As above, and away the responder says k = 0 to all. R-EMID = log m. H = 0, so the first term is 0; the replies of Q
    # against the uniform references: D_JS < ln 2, so B1 < 8 (ln 2)^(1/4) = 7.3, whatever m is.
    m = 2000
    middle = np.full(m, 0.5 / m)
    middle[0] += 0.5
    jsd = -math.log(middle[0]) / 2 + (np.full(m, 1 / m) * np.log((1 / m) / middle)).sum() / 2
    assert 0 < jsd < math.log(2)
    assert math.log(m) > b1(0.0, [0, math.log(2), 0], [0, jsd])


# --- attribution ----------------------------------------------------------------------------------------------------


def test_exact_a1_blames_the_failed_component(cache):
    result = attribution(TINY, cache, unheard)
    shown = [row for row in result["rows"] if row["reading"] == "shown" and row["failure"] in FAILURES]
    assert len(shown) == 2 * 12 * len(FAILURES) and all(row["right"] for row in shown)
    english = [row for row in result["rows"] if row["failure"] == "English to all"]
    assert {row["tag"] for row in english} == {"german", "spanish", "chinese", "japanese", "korean"}
    assert {row["blamed"] for row in english if row["reading"] == "shown"} == {"d"}
    assert {row["blamed"] for row in english if (row["reading"], row["negatives"]) == ("owned", "pool")} == {"u"}


def test_equal_losses_blame_nobody_rightly():
    assert not judged("u", {"u": -1.0, "c": -1.0, "d": 0.0})["right"]
    assert judged("u", {"u": -1.0, "c": -0.9, "d": 0.0}) == {
        "component": "u",
        "lost": {"u": -1.0, "c": -0.9, "d": 0.0},
        "blamed": "u",
        "right": True,
    }


# --- a scorer -------------------------------------------------------------------------------------------------------


class Perfect:
    """The references' exact density as a scorer, with and without components; a reply has as many tokens as pieces."""

    version = "perfect-0000000000000000"

    def __init__(self):
        self.asked = 0
        self._values = {}

    def score(self, asks):
        self.asked += len(asks)
        return [self._one(ask) for ask in asks]

    def _one(self, ask):
        x, reply = ask.scenario, reply_of(ask.text)
        if x.sample_id not in self._values:
            self._values[x.sample_id] = read_contexts([x]).value[0].tolist()
        n_tokens = world.parse_response(ask.text).n_pieces
        if ask.drop == ALL:
            return Score(float(exact_draws.log_marginal(REFERENCE, POOL, np.array([reply]))[0]), n_tokens)
        hidden = {"u": {"calling"}, "c": {"craft"}, "d": {"topic", "mood"}}
        gone = set().union(*(hidden[z] for z in ask.drop))
        total = 0.0
        for slot, row, symbol in zip(world.SLOTS, self._values[x.sample_id], reply, strict=True):
            table = REFERENCE.table(x.subset_tag, slot)
            total += math.log(table[:, symbol].mean() if world.SLOT_ATTRIBUTE[slot] in gone else table[row, symbol])
        return Score(total, n_tokens)


@functools.cache
def reply_of(text):
    return tuple(read_replies([text])[0].tolist())


@pytest.fixture(scope="module")
def judged_scorer(tmp_path_factory):
    root = tmp_path_factory.mktemp("calibration")
    settings = replace(TINY, scenarios=4, k=2)
    return learned(Perfect(), settings, Cache(root, settings), unheard)


def test_a_perfect_scorer_estimates_what_the_exact_density_does(judged_scorer):
    assert len(judged_scorer["points"]) == 88
    for point in judged_scorer["points"]:
        for estimate in ("club", "l1out", "infonce"):
            for negatives in ("subset", "pool"):
                ours = point["estimates"][f"learned {estimate} {negatives} sum"]
                assert ours == pytest.approx(point["estimates"][f"exact {estimate} {negatives} sum"])
        ours = point["estimates"]["learned learned_marginal pool sum"]
        assert ours == pytest.approx(point["estimates"]["exact learned_marginal pool sum"])
        # every reply has five pieces: a token's mean is a fifth of the sum
        fifth = point["estimates"]["learned club pool token_mean"]
        assert fifth == pytest.approx(point["estimates"]["learned club pool sum"] / 5)
    ranks = {(r["density"], r["estimate"], r["negatives"], r["scale"]): r["spearman"] for r in judged_scorer["correlations"]}
    grid = {(r["negatives"], r["n"], r["k"]): r["spearman"]["scored"] for r in judged_scorer["grid"]}
    assert set(grid) == {(where, n, k) for where in ("subset", "pool") for n in (1, 2, 4) for k in (1, 2)}
    # all scenarios and negatives: the default estimate itself
    assert grid["pool", 4, 2] == pytest.approx(ranks["learned", "club", "pool", "sum"]["scored, pool"])
    # four scenarios a subset are few, and still the ranks follow what a scorer of references measures
    assert ranks["learned", "learned_marginal", "pool", "sum"]["scored, pool"] > 0.8


def test_a_perfect_scorer_blames_the_failed_component(judged_scorer):
    rows = [row for row in judged_scorer["attribution"] if row["failure"] in FAILURES]
    assert len(rows) == 72 and np.mean([row["right"] for row in rows]) >= 0.95
    told = {verdict["line"]: verdict["holds"] for verdict in judged_scorer["verdicts"]}
    assert told["A1 by the scorer: failures of what one component alone shows lose most in their component"]


def test_a_perfect_scorers_information_is_the_exact_one(judged_scorer):
    # M4 is a mean over four references: within a few nats of I, and M1, which is no estimate of I, far above it
    for row in judged_scorer["information"]:
        assert row["estimates"]["exact club"] == pytest.approx(row["estimates"]["learned club"])
        assert abs(row["estimates"]["exact learned_marginal"] - row["exact"]) < 5
        assert row["club_exact"] > row["exact"] + 15


def test_what_cannot_be_scored_is_named(tmp_path):
    class Short(Perfect):
        def _one(self, ask):
            return Score(math.nan, 9, "too_long")

    with pytest.raises(ScoreError, match=r"IDTest-0000\d' is too_long in the context of .* limits\.prompt"):
        learned(Short(), TINY, Cache(tmp_path, TINY), unheard)


def test_the_cast_has_eight_responders_and_a_spread_of_truths():
    laws = dialled()
    truths = {
        (law.name, tag): exact.remi(law, only("IDTest")) - exact.remi(law, only(tag)) for law in laws for tag in SHIFTED
    }
    assert len(laws) == 8 and len({law.name for law in laws}) == 8
    assert len({round(value, 6) for value in truths.values()}) >= 70  # few ties, which would cap a rank correlation
    assert all(0 <= law.fault(tag).error <= 0.6 for law in laws for tag in SHIFTED)


def test_a_calibration_writes_its_report_and_takes_up_where_it_was(tmp_path, monkeypatch):
    out, scorer = tmp_path / "calibration", Perfect()
    result = calibration.calibrate(out, TINY, scorer)
    files = report.write(out, result)
    names = {"calibration.json", "calibration.md", "estimates.png", "error.png", "coverage.png", "bound.png", "learned.png"}
    assert {file.name for file in files} == names
    assert json.loads((out / "calibration.json").read_text())["verdicts"] == result["verdicts"]
    text = (out / "calibration.md").read_text()
    for verdict in result["verdicts"]:
        assert verdict["found"].replace("|", "\\|") in text
    assert "guesses under shift" in json.dumps(result["bounds"]["rows"])
    assert report.console(result).count("asked:") == len(result["verdicts"])
    asked = scorer.asked
    for module in (calibration.bracket, calibration.coverage):
        monkeypatch.setitem(module.__globals__, "_draw", lambda *_: pytest.fail("drawn again"))
    again = calibration.calibrate(out, TINY, scorer)
    assert json.dumps(again) == json.dumps(result) and scorer.asked == asked
    with pytest.raises(ConfigError, match="calibration of other settings"):
        calibration.calibrate(out, replace(TINY, seed=1))


def test_an_interrupted_scorer_goes_on(tmp_path):
    class Stops(Perfect):
        def score(self, asks):
            if self.asked > 100:
                raise KeyboardInterrupt
            return super().score(asks)

    scorer = Stops()
    with pytest.raises(KeyboardInterrupt):
        learned(scorer, TINY, Cache(tmp_path, TINY), unheard)
    assert len(list((tmp_path / "parts").glob("*.npz"))) == 1  # 24 scenarios x (5 + 1 + 1) likelihoods of the references
    rest = Perfect()
    learned(rest, TINY, Cache(tmp_path, TINY), unheard)
    # the references are kept; eight responders with contrasts and eight failures without are asked for
    assert rest.asked == 24 * (8 * 7 + 8 * 5)


def test_the_command_refuses_what_it_cannot_use(tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    assert main(["calibrate", "--out", str(tmp_path / "taken"), "--quick"]) == 2
    assert "holds no calibration; expected a folder that is new or empty" in capsys.readouterr().err
    assert main(["calibrate", "--out", str(tmp_path / "new"), "--scorer", str(tmp_path / "no run")]) == 2
    assert "resolved.yaml is missing" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_quick_is_a_smaller_calibration():
    whole = Settings()
    assert QUICK.main_draws < whole.main_draws and QUICK.scenarios < whole.scenarios and max(QUICK.sizes) < max(whole.sizes)
    assert whole.main_draws >= 100 and whole.coverage_draws >= 100 and whole.main_size == 1000
    assert SYMBOLS["closing"][-1] == world.OTHER
