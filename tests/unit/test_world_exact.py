"""Exact sums of the world against closed forms, brute force and draws; derivations beside the numbers."""

import itertools
import math

import numpy as np
import pytest

from coevo.data import world
from coevo.data.world import exact
from coevo.data.world.draws import (
    draw_contexts,
    draw_even,
    draw_replies,
    log_design,
    log_marginal,
    log_matrix,
    read_contexts,
    read_replies,
)
from coevo.data.world.exact import POOL, TAGS, only
from coevo.data.world.responders import REFERENCE, SYMBOLS, Fault, Responder, under
from coevo.errors import DataError
from coevo.maths.information import full_design

HOME = only("IDTest")
ANN = world.Attributes("en", "formal", "nurse", "physicist", "sea", "worried")
EPS = world.EPSILON
# values n, variants m and phrases V of each slot, in English
SHAPE = {
    "greeting": (3, 2, 36),
    "address": (8, 1, 48),
    "content": (12, 2, 144),
    "catchphrase": (8, 1, 84),
    "closing": (4, 1, 24),
}


def fails(*attributes, error=0.0):
    return Fault(error, mistakes=frozenset(attributes))


FAULTS = (
    Fault(),
    Fault(0.3),
    Fault(0.6, "near"),
    fails("calling", "craft"),
    fails("language", "topic", error=0.2),
    Fault(ignores=frozenset({"manner", "mood"})),
)


# --- responders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("tag", ["IDTest", "korean", "Gaming"])
def test_a_responders_table_is_a_law(fault, tag):
    for slot in world.SLOTS:
        table = Responder("x", fault).table(tag, slot)
        assert table.shape == (len(world.support(tag)[world.SLOT_ATTRIBUTE[slot]]), len(SYMBOLS[slot]))
        assert np.allclose(table.sum(axis=1), 1, atol=1e-12) and table.min() > 0


def test_the_sound_responder_is_the_reference():
    for slot in world.SLOTS:
        assert REFERENCE.slot_distribution(ANN, "IDTest", slot) == pytest.approx(world.slot_distribution(ANN, slot))


def test_dialled_error_of_any_symbol():
    # (1 - eta) * (0.98 + 0.02/25) + eta / 25 for the right closing, eta = 0.5; a wrong one (1 - eta) * 0.02/25 + eta/25
    closing = Responder("x", Fault(0.5)).slot_distribution(ANN, "IDTest", "closing")
    assert closing["Take heart, this too will pass."] == pytest.approx(0.5 * (0.98 + 0.02 / 25) + 0.5 / 25)
    assert closing[world.OTHER] == pytest.approx(0.5 * 0.02 / 25 + 0.5 / 25)


def test_near_errors_are_right_for_another_value_in_the_users_language():
    # Four moods: the three other closings of English share eta, 0.6/3 each; other languages keep (1-eta) of the floor
    closing = Responder("x", Fault(0.6, "near")).slot_distribution(ANN, "IDTest", "closing")
    assert closing["Keep that lovely smile."] == pytest.approx(0.4 * 0.02 / 25 + 0.2)
    others = [p.text for p in world.PHRASES if p.slot == "closing" and p.language != "en"]
    assert all(closing[text] == pytest.approx(0.4 * 0.02 / 25) for text in others)


def test_mistakes_and_guesses():
    # A mistaken mood: 0 to the right value's phrase beyond the floor, (1-eps)/3 to each other; guessed: (1-eps)/4 to all
    mistaken = Responder("x", fails("mood")).slot_distribution(ANN, "IDTest", "closing")
    guessed = Responder("x", Fault(ignores=frozenset({"mood"}))).slot_distribution(ANN, "IDTest", "closing")
    floor = EPS / 25
    assert mistaken["Take heart, this too will pass."] == pytest.approx(floor)
    assert mistaken["Keep that lovely smile."] == pytest.approx((1 - EPS) / 3 + floor)
    assert guessed["Take heart, this too will pass."] == pytest.approx((1 - EPS) / 4 + floor)
    # language taken for English: a German nurse is greeted as an English one
    heinz = world.Attributes("de", "formal", "nurse", "physicist", "sea", "worried")
    english = Responder("x", fails("language"))
    for slot in world.SLOTS:
        assert english.slot_distribution(heinz, "german", slot) == pytest.approx(world.slot_distribution(ANN, slot))


def test_a_fault_may_belong_to_some_tags():
    law = Responder("x", under=under(["german", "Theater"], Fault(0.5)))
    assert [law.fault(tag).error for tag in ("IDTest", "german", "Theater", "Gaming")] == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize("fault", FAULTS)
def test_answers_follow_the_table(fault):
    law = Responder("x", fault)
    scenarios = world.generate("OOD1Test", 5, seed=3)  # one a language
    counts = {}
    n = 600
    for seed in range(n // 5):
        for x, response in zip(scenarios, law.respond(scenarios, seed), strict=True):
            parsed = world.parse_response(response.text)
            assert parsed.junk == 0 and parsed.n_pieces == 5
            closing = law.slot_distribution(world.parse_scenario(x), x.subset_tag, "closing")
            best = max(closing, key=closing.get)
            hit = counts.setdefault(closing[best], [0, 0])
            hit[0] += parsed.symbols[-1] == best
            hit[1] += 1
    for p, (hits, total) in counts.items():
        assert abs(hits - total * p) <= 5 * math.sqrt(total * p * (1 - p)) + 1
    assert law.respond(scenarios, 7) == law.respond(scenarios[::-1], 7)[::-1]  # each on its own seed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fails("callin"), "nearest: calling"),
        (lambda: Fault(ignores=frozenset({"language"})), "Fault.ignores has 'language'"),
        (lambda: Fault(1.5), "Fault.error is 1.5"),
        (lambda: Fault(0.1, "far"), "Fault.errors is 'far'"),
        (lambda: Fault(mistakes=frozenset({"mood"}), ignores=frozenset({"mood"})), "mood is in both"),
        (lambda: under(["germn"], Fault()), "nearest: german"),
        (lambda: REFERENCE.slot_distribution(ANN, "german", "closing"), "language is 'en', which 'german' does not have"),
    ],
)
def test_bad_faults_are_named(make, message):
    with pytest.raises(DataError, match=message):
        make()


# --- exact sums -----------------------------------------------------------------------------------------------------


def slot_entropy(p_by_count):
    return -sum(count * p * math.log(p) for count, p in p_by_count)


def test_the_references_information_in_closed_form():
    # A slot with n values of m phrases each, V phrases and OTHER in all. Given x: m phrases at (1-e)/m + f and V+1-m at
    # f = e/(V+1). Over x uniform: n*m phrases at (1-e)/(n*m) + f, the rest at f. I is the difference of the entropies,
    # and slots add up, as they are independent given x and over x.
    total = 0.0
    for n, m, size in SHAPE.values():
        f = EPS / (size + 1)
        given = slot_entropy([(m, (1 - EPS) / m + f), (size + 1 - m, f)])
        over = slot_entropy([(n * m, (1 - EPS) / (n * m) + f), (size + 1 - n * m, f)])
        total += over - given
    assert exact.information(REFERENCE, HOME) == pytest.approx(total, abs=1e-9)
    assert total == pytest.approx(8.868, abs=1e-3)  # below log(3 * 8 * 12 * 8 * 4) = 9.129


def test_pure_noise_says_nothing():
    noise = Responder("noise", Fault(1.0))
    assert exact.information(noise, HOME) == pytest.approx(0, abs=1e-9)
    assert exact.information(noise, POOL) == pytest.approx(0, abs=1e-9)
    assert exact.remi(noise, HOME) == pytest.approx(-exact.information(REFERENCE, HOME))
    assert exact.remi(REFERENCE, POOL) == exact.club_remi(REFERENCE, POOL) == 0


@pytest.mark.parametrize("fault", [Fault(), Fault(0.4), fails("language", error=0.1), fails("mood")])
def test_information_and_divergence_of_a_pool_by_brute_force(fault, monkeypatch):
    # Two slots, three subsets of two languages and two supports: every reply (37 * 85) and every scenario is summed over
    monkeypatch.setattr(exact, "SLOTS", ("greeting", "catchphrase"))
    exact._expected_log.cache_clear()
    law, population = Responder("x", fault), {"IDTest": 0.5, "german": 0.3, "Theater": 0.2}

    def laws(who):
        """[(weight, p(reply | x))] over all scenarios; a reply is a pair of symbols."""
        found = []
        for tag, weight in population.items():
            first, second = who.table(tag, "greeting"), who.table(tag, "catchphrase")
            for i, j in itertools.product(range(len(first)), range(len(second))):
                found.append((weight / len(first) / len(second), np.outer(first[i], second[j])))
        return found

    ours, theirs = laws(law), laws(REFERENCE)
    marginal, reference = (sum(w * p for w, p in joint) for joint in (ours, theirs))
    definition = sum(w * (p * np.log(p / marginal)).sum() for w, p in ours)
    scored = sum(w * (p * np.log(q / reference)).sum() for (w, p), (_, q) in zip(ours, theirs, strict=True))
    assert exact.information(law, population) == pytest.approx(definition, abs=1e-9)
    assert exact.information(law, population, REFERENCE) == pytest.approx(scored, abs=1e-9)
    # M1: E log p(y|x) - E log p(y|x'), x' independent: sum_x' w' sum_y p(y) log p(y|x')
    elsewhere = sum(w * (marginal * np.log(p)).sum() for w, p in ours)
    assert exact.club(law, population) == pytest.approx(
        sum(w * (p * np.log(p)).sum() for w, p in ours) - elsewhere, abs=1e-9
    )
    # ... which is I + KL(p(x)p(y) || p(x,y))
    divergence = sum(w * (marginal * np.log(marginal / p)).sum() for w, p in ours)
    assert exact.club(law, population) == pytest.approx(definition + divergence, abs=1e-9)
    middle = (marginal + reference) / 2
    jsd = sum((p * np.log(p / middle)).sum() for p in (marginal, reference)) / 2
    assert exact.response_jsd(law, population) == pytest.approx(jsd, abs=1e-9)
    exact._expected_log.cache_clear()


def test_a_subset_has_its_share_of_the_pools_information():
    law = Responder("x", Fault(0.3, "near"))
    shares = [exact.information(law, only(tag), negatives=POOL) for tag in TAGS]
    assert np.mean(shares) == pytest.approx(exact.information(law, POOL), abs=1e-9)
    # the pool knows the language as well, so it says more than the subset alone
    assert min(shares) > exact.information(law, HOME)


def test_a_definite_error_costs_the_scorer_and_not_the_definition():
    # English to German users is as informative as German; to the references' density every slot is at its floor, with and
    # without the context, so it says nothing: R-EMI is minus what the references say
    english = Responder("English", fails("language"))
    assert exact.remi(english, only("german")) == pytest.approx(0, abs=1e-9)
    assert exact.information(english, only("german"), REFERENCE) == pytest.approx(-0.066, abs=1e-3)  # noise that is right
    # ... and to English users it is the reference
    assert exact.remi(english, only("Theater"), REFERENCE) == pytest.approx(0, abs=1e-9)


def test_scored_is_definition_minus_two_divergences():
    # E_x KL(p(.|x) || p*(.|x)) - KL(p || p*), by slot, as within a subset the slots are independent: E log p*(y|x)/p*(y) =
    # E log p(y|x)/p(y) - E log p(y|x)/p*(y|x) + E log p(y)/p*(y)
    law = Responder("x", fails("calling", error=0.2))
    apart = 0.0
    for slot in world.SLOTS:
        p, q = law.table("IDTest", slot), REFERENCE.table("IDTest", slot)
        apart += (p * np.log(p / q)).sum(axis=1).mean()
        apart -= (p.mean(axis=0) * np.log(p.mean(axis=0) / q.mean(axis=0))).sum()
    gap = exact.information(law, HOME) - exact.information(law, HOME, REFERENCE)
    assert gap == pytest.approx(apart, abs=1e-9)
    assert gap > 1


def test_divergences_of_components():
    # A user shift changes what persona and dialogue show, disjointly: ln 2; the others likewise in their component alone
    ln2 = pytest.approx(math.log(2))
    assert exact.component_jsd(HOME, only("german")) == {"u": ln2, "c": 0, "d": ln2}
    assert exact.component_jsd(HOME, only("Theater")) == {"u": 0, "c": ln2, "d": 0}
    assert exact.component_jsd(HOME, only("WordLevelComposition")) == {"u": 0, "c": 0, "d": ln2}
    assert exact.component_jsd(HOME, HOME) == {"u": 0, "c": 0, "d": 0}
    # half of Q is P: for P = p and Q = (p + r)/2 with p, r disjoint, M has 3/4 on p and 1/4 on r. H(M) = H(1/4) + 3/4 H(p)
    # + 1/4 H(r), H(Q) = ln 2 + H(p)/2 + H(r)/2, so D = H(1/4) - ln(2)/2
    half = exact.component_jsd(HOME, only("IDTest", "Theater"))["c"]
    assert half == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75) - math.log(2) / 2)


def test_divergence_of_responses_at_its_ends():
    assert exact.response_jsd(REFERENCE, POOL) == pytest.approx(0, abs=1e-9)
    # five slots of another language are all but disjoint from the right ones
    assert math.log(2) - 0.01 < exact.response_jsd(Responder("x", fails("language")), only("korean")) <= math.log(2)


def test_the_highest_entropy_is_that_of_the_worst_subset():
    law = Responder("x", under=under(["german"], Fault(1.0)))
    reference = sum(
        slot_entropy([(m, (1 - EPS) / m + EPS / (size + 1)), (size + 1 - m, EPS / (size + 1))])
        for _, m, size in SHAPE.values()
    )
    noise = sum(math.log(size + 1) for _, _, size in SHAPE.values())
    assert exact.highest_entropy(law, HOME) == pytest.approx(2 * reference)
    assert exact.highest_entropy(law, {**HOME, "german": 0.5}) == pytest.approx(reference + noise)


def test_a_lost_component_in_closed_form():
    # The calling is shown by the persona alone and decides the address, of V = 48 phrases, one for each of 8 callings. With
    # f = e/49: right a = 1-e+f; without u every calling's phrase has (1-e)/8 + f. I_u(Y*) = a log(a/b) + 7 f log(f/b), as
    # the other phrases are alike with and without u. A mistaken responder says each of the seven others with
    # (1-e)/7 + f, and the right one with f: I_u = 7 ((1-e)/7 + f) log(f/b) + f log(a/b).
    f = EPS / 49
    a, b, c = 1 - EPS + f, (1 - EPS) / 8 + f, (1 - EPS) / 7 + f
    reference = a * math.log(a / b) + 7 * f * math.log(f / b)
    mistaken = 7 * c * math.log(f / b) + f * math.log(a / b)
    law = Responder("x", fails("calling"))
    assert exact.component_information(REFERENCE, HOME, "u") == pytest.approx(reference, abs=1e-9)
    assert exact.component_remi(law, HOME, "u") == pytest.approx(mistaken - reference, abs=1e-9)
    assert exact.component_remi(law, HOME, "c") == pytest.approx(0, abs=1e-9)
    assert exact.component_remi(law, HOME, "d") == pytest.approx(0, abs=1e-9)


def test_what_two_components_show_is_missed_without_either():
    # The manner stands in the persona and in the query: without either, the other still tells it, so that A1 as a reader
    # sees it is 0. Where the user owns it, it is u's.
    law = Responder("x", fails("manner"))
    assert {z: exact.component_remi(law, HOME, z) for z in "ucd"} == pytest.approx({"u": 0, "c": 0, "d": 0}, abs=1e-9)
    owned = {z: exact.component_remi(law, HOME, z, "owned") for z in "ucd"}
    assert owned["u"] < -6 and owned["c"] == pytest.approx(0, abs=1e-9) and owned["d"] == pytest.approx(0, abs=1e-9)
    # English to German users: as shown, the query loses most (topic and mood, two slots of five), and as owned, over a pool
    # in which the language is information, the user
    english = Responder("x", fails("language"))
    shown = {z: exact.component_remi(english, only("german"), z, "shown", POOL) for z in "ucd"}
    owned = {z: exact.component_remi(english, only("german"), z, "owned", POOL) for z in "ucd"}
    assert min(shown, key=shown.get) == "d" and min(owned, key=owned.get) == "u"


# --- draws ----------------------------------------------------------------------------------------------------------


def test_draws_agree_with_texts():
    # the same likelihood by text (parse, log_density) and by index (tables), in every pair of contexts and subset
    scenarios = [x for split in ("IDTest", "OOD1Test", "OOD2Test", "OOD3Test") for x in world.generate(split, 12, seed=1)]
    texts = [r.text for r in Responder("x", Fault(0.3)).respond(scenarios, 0)]
    contexts, replies = read_contexts(scenarios), read_replies(texts)
    matrix = log_matrix(REFERENCE, contexts, replies)
    for i, j in itertools.product(range(0, 48, 5), range(0, 48, 7)):
        assert matrix[i, j] == pytest.approx(world.log_density(world.parse_scenario(scenarios[i]), texts[j]))
    where = np.concatenate([np.arange(48)[:, None], (np.arange(48)[:, None] + np.arange(1, 48)) % 48], axis=1)
    assert np.array_equal(log_design(REFERENCE, contexts, replies, where), full_design(matrix))


def test_draws_follow_the_exact_sums():
    # M4 by draws is a mean of independent terms: within 4 standard errors of the sum; so is M1's first half, H(Y|X)
    rng = np.random.default_rng(0)
    law = Responder("x", fails("calling", error=0.2))
    for population in (HOME, POOL):
        contexts = draw_contexts(population, 20_000, rng)
        replies = draw_replies(law, contexts, rng)
        own = log_design(REFERENCE, contexts, replies, np.arange(len(contexts))[:, None])[:, 0]
        for values, truth in (
            (own, exact.likelihood(law, REFERENCE, population)),
            (own - log_marginal(REFERENCE, population, replies), exact.information(law, population, REFERENCE)),
        ):
            assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(len(values))


def test_even_draws_have_every_subset_equally_often():
    contexts = draw_even(TAGS, 7, np.random.default_rng(0))
    assert len(contexts) == 84 and np.bincount(contexts.tag).tolist() == [7] * 12
    assert contexts.value.max(axis=0).tolist() <= [2, 7, 11, 7, 3] and contexts.value.min() == 0
