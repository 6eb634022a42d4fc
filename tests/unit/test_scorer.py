"""The scorer: likelihoods in the order asked, and no question or prompt twice."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from coevo.data import world
from coevo.lm.loading import load_policy, load_tokenizer
from coevo.prompts import ALL, NO_REASONING, SHORT
from coevo.rewards.parts import Fit, fits
from coevo.scoring import scorer as module
from coevo.scoring.scorer import Ask, Scorer

BUILTIN = Path(str(resources.files("coevo.lm") / "builtin"))


@pytest.fixture(scope="module")
def scorer():
    return Scorer(load_policy(BUILTIN, None, trainable=False, dtype="float32"), load_tokenizer(BUILTIN), "v1", SHORT, 512)


def test_a_group_gets_what_each_text_gets_alone(scorer):
    # what GRPO asks: 2 prompts, 3 completions each, in their own context and in none
    first, second = world.generate("ShiftTrain", 2, seed=1)
    scenarios = [first, first, first, second, second, second]
    texts = ["Hi.", first.reference, "No idea!", second.reference, "Hi.", "Hi."]
    found = fits(scorer, scenarios, texts)
    for x, text, fit in zip(scenarios, texts, found, strict=True):
        own, none = (scorer.score([Ask(x, text, drop)])[0].logprob_nats for drop in (frozenset(), ALL))
        assert isinstance(fit, Fit)
        assert (fit.likelihood, fit.marginal) == (pytest.approx(own, abs=1e-4), pytest.approx(none, abs=1e-4))


def test_equal_questions_are_computed_once_and_prompts_kept_apart(scorer, monkeypatch):
    pairs = []
    score_pairs = module.score_pairs
    monkeypatch.setattr(module, "score_pairs", lambda m, t, p, **kw: (pairs.extend(p), score_pairs(m, t, p, **kw))[1])
    first, second = world.generate("ShiftTrain", 2, seed=1)
    asks = [Ask(first, "Hi."), Ask(second, "Hi."), Ask(first, "Hi."), Ask(first, "Hi.", ALL), Ask(second, "Hi.", ALL)]
    scores = scorer.score(asks)
    # two own contexts and one empty one, which is the same for both
    assert len(pairs) == 3 and len({prompt for prompt, _ in pairs}) == 3
    assert scores[0] == scores[2] and scores[3] == scores[4]
    assert len({score.logprob_nats for score in scores}) == 3


def test_a_reasoning_is_part_of_the_prompt_that_asks_share(scorer):
    x = world.generate("ShiftTrain", 1, seed=1)[0]
    own, other, same = Ask(x, "Hi.", reasoning="craft: baker"), Ask(x, "Hi.", reasoning="craft: smith"), Ask(x, "Hi.")
    assert len({own.context, other.context, same.context}) == 3
    assert Ask(x, "Bye.", reasoning="craft: baker").context == own.context
    # a reasoning is shown beside no dropped component, and one that is not there cannot be dropped
    assert Ask(x, "Hi.", ALL, "craft: baker").context == Ask(x, "Hi.", ALL).context
    assert Ask(x, "Hi.", NO_REASONING).context == Ask(x, "Hi.", NO_REASONING, "craft: baker").context == same.context
    together = [score.logprob_nats for score in scorer.score([own, other, same])]
    alone = [scorer.score([ask])[0].logprob_nats for ask in (own, other, same)]
    assert together == pytest.approx(alone, abs=1e-4) and len(set(together)) == 3
