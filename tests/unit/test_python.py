"""What other programs build on: the public names, estimates from likelihoods, the reward as TRL calls it, any audit."""

from __future__ import annotations

import math
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient

import coevo
from coevo import estimates
from coevo.config import RewardWeights
from coevo.config.load import parse_recipe
from coevo.data import world
from coevo.errors import ConfigError, DataError, EndpointError, ScoreError
from coevo.rewards.completions import statuses_of, texts_of
from coevo.rewards.served import application
from coevo.scoring.scorer import Ask
from coevo.types import Response, Scenario, Score

PUBLIC = {
    "Audit", "CoevoError", "Diagnosis", "Measure", "ModelResult", "REMIDReward", "RealText", "RemoteReward", "Response",
    "Reward", "RewardWeights", "Scenario", "ShiftResult", "Turn", "audit", "chat_messages", "diagnose", "estimates",
    "generate", "load_scenarios", "load_scorer",
}  # fmt: skip
XS = [*world.generate("IDTest", 6, seed=0), *world.generate("OOD1Test", 10, seed=0)]
PLAIN = RewardWeights()


class Letters:
    """A scorer whose likelihoods are known: 0.1 nats a character that the context has too, 1 nat another; without a context
    every character costs 2."""

    version = "letters"

    def score(self, asks: list[Ask]) -> list[Score]:
        return [self._one(ask) for ask in asks]

    @staticmethod
    def _one(ask: Ask) -> Score:
        if not ask.text.strip():
            return Score(math.nan, 0, "empty")
        if len(ask.text) > 500:
            return Score(math.nan, 0, "too_long")
        known = set() if set(ask.drop) >= {"u", "c", "d"} else set(ask.scenario.reference)
        nats = sum((0.1 if c in known else 1.0) if known else 2.0 for c in ask.text)
        return Score(-nats, len(ask.text))


# --- names --------------------------------------------------------------------------------------------------------------


def test_no_public_name_goes_and_each_resolves() -> None:
    assert set(coevo.__all__) == PUBLIC and set(coevo._PLACES) == PUBLIC
    for name in PUBLIC:
        assert getattr(coevo, name) is not None, name
    assert set(coevo.__all__) <= set(dir(coevo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        coevo.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("said", "absent"),
    [
        ("import coevo", ("torch", "numpy", "pydantic", "transformers")),
        (
            "import coevo; coevo.estimates, coevo.load_scenarios, coevo.Diagnosis, coevo.RemoteReward",
            ("torch", "transformers"),
        ),
    ],
)
def test_what_importing_does_not_load(said: str, absent: tuple[str, ...]) -> None:
    code = f"import sys; {said}; print([name for name in {absent} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_function_is_not_hidden_by_a_package_of_its_name() -> None:
    import coevo.diagnosis.run

    assert callable(coevo.diagnose) and callable(coevo.audit) and callable(coevo.generate)


# --- estimates ----------------------------------------------------------------------------------------------------------


def test_estimates_by_hand() -> None:
    # own -2 and -4, elsewhere (-5, -7) and (-4, -8): M1 = mean(-2 + 6, -4 + 6) = 3
    texts = estimates.Likelihoods([-2.0, -4.0], others=[[-5.0, -7.0], [-4.0, -8.0]], alone=[-9.0, -5.0])
    assert estimates.information(texts).value == pytest.approx(3.0)
    # M4 = mean(7, 1) = 4
    assert estimates.information(texts, "learned_marginal").value == pytest.approx(4.0)
    # M2: -2 - ln((e^-5 + e^-7)/2), -4 - ln((e^-4 + e^-8)/2)
    l1out = np.mean([-2 - math.log((math.exp(-5) + math.exp(-7)) / 2), -4 - math.log((math.exp(-4) + math.exp(-8)) / 2)])
    assert estimates.information(texts, "l1out").value == pytest.approx(l1out)
    # M3 has the positive in the mean, so it is at most ln 3
    nce = np.mean([
        -2 - math.log((math.exp(-2) + math.exp(-5) + math.exp(-7)) / 3),
        -4 - math.log((math.exp(-4) + math.exp(-4) + math.exp(-8)) / 3),
    ])  # fmt: skip
    assert estimates.information(texts, "infonce").value == pytest.approx(nce) and nce < math.log(3)
    # responses with D1 = 1 and 2 against references with D1 = 4 and 2: R-EMI = mean(-3, 0); M = mean(-2 + 6, -5 + 6)
    said = estimates.Likelihoods([-1.0, -3.0], others=[[-2.0, -2.0], [-5.0, -5.0]])
    ideal = estimates.Likelihoods([-2.0, -4.0], others=[[-5.0, -7.0], [-4.0, -8.0]])
    assert estimates.remi(said, ideal).value == pytest.approx(-1.5)
    assert estimates.register_gap(said, ideal).value == pytest.approx(2.5)
    assert estimates.remid((ideal, ideal), (said, ideal)).value == pytest.approx(1.5)


def test_the_interval_is_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(-10, 1, 400)
    found = estimates.information(estimates.Likelihoods(own, alone=np.full(400, -12.0)), "learned_marginal")
    # the mean's standard error is 1/20, so the 95 % interval is about 4 · 1/20 wide
    assert found.low < 2.0 < found.high and found.high - found.low == pytest.approx(0.196, rel=0.15)
    assert found.to_markdown() == str(found) and set(found.to_dict()) == {"value", "low", "high"}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"own": [1.0, 2.0], "others": [[1.0], [2.0], [3.0]]}, r"others: shape \(3, 1\); expected \(N, K\), N = 2"),
        ({"own": [1.0, 2.0], "alone": [1.0]}, r"alone: shape \(1,\)"),
        ({"own": [1.0, math.nan]}, "own: row 1 is not finite; leave out"),
        ({"own": []}, "own: shape"),
        ({"own": 1.0}, "own: shape"),
        ({"own": [1.0], "others": [[math.inf]]}, "others: row 0 is not finite"),
        ({"own": ["a"]}, "own: "),
    ],
)
def test_likelihoods_that_cannot_be(arrays: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        estimates.Likelihoods(**arrays)  # type: ignore[arg-type]


def test_an_estimate_without_what_it_needs() -> None:
    own = [-1.0, -2.0]
    alone, others = estimates.Likelihoods(own, alone=own), estimates.Likelihoods(own, others=[[-2.0], [-3.0]])
    with pytest.raises(DataError, match="others: missing; M1 to M3"):
        estimates.information(alone)
    with pytest.raises(DataError, match="alone: missing; M4"):
        estimates.information(others, "learned_marginal")
    with pytest.raises(DataError, match="estimator 'mine'"):
        estimates.information(others, "mine")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="2 responses and 1 references"):
        estimates.remi(others, estimates.Likelihoods([-1.0], others=[[-2.0]]))


# --- the reward ---------------------------------------------------------------------------------------------------------


def asked(reward: object, texts: list[object], scenario: Scenario = XS[0], **more: object) -> list[float | None]:
    keys = [scenario.sample_id] * len(texts)
    return reward(prompts=[""] * len(texts), completions=texts, sample_id=keys, **more)  # type: ignore[operator]


def test_a_reward_by_hand() -> None:
    reward = coevo.REMIDReward(Letters(), XS, PLAIN)
    n = len(XS[0].reference)
    # y*: 0.1 nats a character, 2 alone. R2 = 0; R4 = log q(y*|x) = -0.1 n
    right, empty = asked(reward, [XS[0].reference, "  "])
    assert right == pytest.approx(PLAIN.register_gap * -0.1 * n) and empty is None
    assert [one.status for one in reward.last] == ["ok", "empty"]
    assert reward.parts[0]["anchor_remi"] == pytest.approx(0.0) and reward.parts[1] == {}


def test_a_baseline_moves_a_shifted_scenario_and_no_other() -> None:
    shifted = Scenario("s", "OOD1Test", "german", "u", "c", XS[0].dialogue, "abc", parent=XS[0].sample_id)
    reward = coevo.REMIDReward(Letters(), [*XS, shifted], PLAIN)
    before = asked(reward, ["abc"], shifted)[0], asked(reward, ["abc"])[0]
    reward.take_baselines([XS[0]], [("zzz", "ok")])
    (b,) = reward.baselines.values()
    # "zzz" in XS[0]'s scenario: D1 = 3 · (2 - 1) against n · 1.9 of the reference, if it has no z
    assert "z" not in XS[0].reference and b == pytest.approx(3 - 1.9 * len(XS[0].reference))
    after = asked(reward, ["abc"], shifted)[0], asked(reward, ["abc"])[0]
    assert before[0] is not None and after[0] == pytest.approx(before[0] - PLAIN.information * b) and after[1] == before[1]


def test_messages_and_tokens_are_read_as_trl_gives_them() -> None:
    chat = [[{"role": "assistant", "content": "abc"}]]
    assert texts_of(chat) == texts_of(["abc"]) == ["abc"]
    # whoever is trained to think first is paid for what the user sees
    assert texts_of(["<think>\nhm\n</think>\n\nabc", "<think>hm"]) == ["abc", ""]
    assert statuses_of(["a", "", "b"], [[5, 9], [9], []], {9}) == ["ok", "empty", "truncated"]
    assert statuses_of(["a"], [[5]], ()) == ["ok"]
    reward = coevo.REMIDReward(Letters(), XS, PLAIN, end_ids=[9])
    assert asked(reward, ["abc"], completion_ids=[[1, 2]]) == [None] and reward.last[0].status == "truncated"
    assert reward.__name__ == "remid"


def test_real_text_is_the_default_and_needs_other_contexts() -> None:
    reward = coevo.REMIDReward(Letters(), XS)
    assert isinstance(reward.weights, coevo.RealText) and reward.others is not None
    first, second = asked(reward, [XS[0].reference, "zzzz zzzz zzzz zzzz"])
    assert first == pytest.approx(0.0) and second is not None and second < 0
    with pytest.raises(ConfigError, match=r"1 of 1 scenarios can be read .* R6 with negatives"):
        coevo.REMIDReward(Letters(), XS[:1])


def test_a_reward_can_be_pickled_and_gives_the_same() -> None:
    reward = coevo.REMIDReward(Letters(), XS)
    texts: list[object] = [XS[0].reference, "abc def", ""]
    again = pickle.loads(pickle.dumps(reward))  # noqa: S301
    assert asked(again, texts) == asked(reward, texts)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"completions": ["a"]}, ScoreError, "no column 'sample_id'.*no other column came"),
        ({"completions": ["a"], "topic": ["x"]}, ScoreError, "'topic' came"),
        ({"completions": ["a", "b"], "sample_id": ["IDTest-00000"]}, ScoreError, "2 completions and 1 sample_ids"),
        ({"completions": ["a"], "sample_id": ["IDTest-0000O"]}, DataError, "no scenario is called 'IDTest-0000O', of 16"),
        ({"completions": ["a"], "sample_id": [3]}, ScoreError, "a sample_id is 3; expected the scenario's name"),
        ({"completions": [3], "sample_id": ["IDTest-00000"]}, ScoreError, "a completion is a int; expected a text"),
        ({"completions": [[]], "sample_id": ["IDTest-00000"]}, ScoreError, "a completion is a list; expected a text"),
    ],
)
def test_calls_that_cannot_be(call: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        coevo.REMIDReward(Letters(), XS, PLAIN)(prompts=[""], **call)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"sample_id": "x"', "JSON decode error"),
        ('{"sample_id": ["a"], "completions": [1]}', "completions.0: Input should be a valid string"),
        ('{"sample_id": ["a"], "completions": ["a"], "more": "\\ud800"}', "more: Extra inputs"),
        ('{"sample_id": ["\\ud800"], "completions": ["a"]}', "sample_id.0: Input should be a valid string"),
        ('{"sample_id": ["a"], "completions": []}', "1 sample_ids, 0 completions"),
        ('{"sample_id": ["a"], "completions": ["a"], "statuses": ["fine"]}', "statuses.0"),
    ],
)
def test_requests_that_cannot_be(body: str, message: str) -> None:
    client = TestClient(application(coevo.REMIDReward(Letters(), XS, PLAIN)))
    answer = client.post("/reward", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and message in answer.json()["detail"]
    assert client.get("/health").json() == {"scenarios": len(XS), "scorer": "letters"}


# --- over HTTP ----------------------------------------------------------------------------------------------------------


@contextmanager
def served(reward: coevo.REMIDReward) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(application(reward), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def test_the_same_through_http() -> None:
    reward = coevo.REMIDReward(Letters(), XS, end_ids=[9])
    texts: list[object] = [XS[0].reference, 'ein Satz – mit \U0001f600 und "Zeichen".', "", "cut off"]
    ids = [[1, 9], [1, 9], [9], [1]]
    here = asked(reward, texts, completion_ids=ids)
    with served(reward) as url:
        remote = coevo.RemoteReward(f"{url}/reward", end_ids=[9])  # as the server prints it
        assert asked(remote, texts, completion_ids=ids) == here
        assert remote.parts == [dict(parts) for parts in reward.parts]
        with pytest.raises(EndpointError, match="no scenario is called 'nobody'"):
            remote(prompts=[""], completions=["a"], sample_id=["nobody"])
        # more than one request's worth, half a surrogate pair, and too long for the scorer
        many = ["abc"] * 1100 + ["\ud800"] + ["a" * 600]
        assert asked(remote, list(many)) == asked(reward, list(many)) and len(remote.parts) == 1102
    with pytest.raises(EndpointError, match="is coevo reward --serve running there"):
        asked(remote, texts)
    with pytest.raises(ScoreError, match="is no address"):
        coevo.RemoteReward("localhost:8600")


# --- the audit of any reward ---------------------------------------------------------------------------------------------


def test_a_reward_for_length_fails_and_one_that_knows_the_reference_passes() -> None:
    def length(completions: list[str], **columns: object) -> list[float]:
        return [float(len(text)) for text in completions]

    def exact(completions: list[str], reference: list[str], **columns: object) -> list[float]:
        return [float(text == ideal) for text, ideal in zip(completions, reference, strict=True)]

    bad, good = coevo.audit(length, XS), coevo.audit(exact, XS)
    assert not bad.passed and bad.members["padding"].above["reward"].value == 0.0
    assert good.passed and good.n == len(XS)
    assert "padding" in str(bad) and "| padding |" in bad.to_markdown() and bad.to_dict()["schema_version"] == 1


def test_the_audit_calls_as_trl_does_and_counts_what_has_no_number() -> None:
    seen: dict[str, object] = {}

    def reward(prompts: list[object], completions: list[list[dict[str, str]]], **columns: object) -> list[float | None]:
        seen.update(columns, prompt=prompts[0])
        texts = [messages[-1]["content"] for messages in completions]
        return [None if len(text) > 40 else math.nan if not text else 1.0 for text in texts]

    short = [x for x in XS if len(x.reference) <= 40] or [Scenario("a", "X", "X", "u", "c", XS[0].dialogue, "short")]
    found = coevo.audit(reward, short, chat=True, columns=lambda x: {"persona": x.persona})
    assert {"sample_id", "reference", "persona"} < set(seen) and seen["prompt"][-1]["role"] == "user"  # type: ignore[index]
    assert found.members["empty"].statuses == {"unscored": found.n} and found.members["empty"].above["reward"].value == 1.0


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda **_: [], "gave 0 numbers for"),
        (lambda completions, **_: [math.inf] * len(completions), "gave inf for scenario IDTest-00000"),
        (lambda completions, **_: ["good"] * len(completions), "gave 'good' for scenario"),
        (lambda completions, **_: [None] * len(completions), "none of 16 references a number"),
    ],
)
def test_rewards_that_cannot_be_audited(reward: object, message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        coevo.audit(reward, XS)  # type: ignore[arg-type]


# --- the diagnosis ------------------------------------------------------------------------------------------------------


def test_a_diagnosis_in_memory() -> None:
    right = {x.sample_id: x.reference for x in XS}
    wrong = right | {x.sample_id: "zzzz qqqq vvvv" for x in XS if x.shift == "user"}
    found = coevo.diagnose(Letters(), XS, wrong, divergences=False, k=2, resamples=50)
    (model,) = found.models.values()
    user = model.shifts["user"]
    assert user.remid is not None and user.remid.low > 0 and user.scored == user.n == 10
    assert model.shifts["id"].remi is not None and model.shifts["id"].remi.value == pytest.approx(0.0)
    assert model.shifts["id"].remid is None and not found.reasoned
    assert "user" in found.to_markdown() and found.to_dict()["schema_version"] == 1 and "<table>" in found._repr_html_()
    assert user.to_dict()["remid"] == user.remid.to_dict() and "user" in user.to_markdown()
    # the same in three other forms
    texts = [wrong[x.sample_id] for x in XS]
    rows = [Response(x.sample_id, wrong[x.sample_id], "model") for x in XS]
    for form in (texts, rows, {"model": rows}):
        again = coevo.diagnose(Letters(), XS, form, divergences=False, k=2, resamples=50)
        assert again.to_dict() == found.to_dict()


def test_text_of_models_is_escaped() -> None:
    rows = [Response(x.sample_id, x.reference, "<b>|m|</b>") for x in XS]
    found = coevo.diagnose(Letters(), XS, rows, divergences=False, k=2, resamples=50)
    assert "<b>" not in found._repr_html_() and "<b>" not in found.to_markdown()


@pytest.mark.parametrize(
    ("responses", "keys", "error", "message"),
    [
        (["a"], {}, DataError, "1 responses to 16 scenarios"),
        ({"nobody": "a"}, {}, DataError, "no scenario is called 'nobody'"),
        ({"IDTest-00000": "a", "IDTest-00001": 3}, {}, DataError, r"responses\['IDTest-00001'\] is a int"),
        ({x.sample_id: "a" for x in XS}, {"k": 0}, ConfigError, "diagnose: .*k"),
        ({x.sample_id: "a" for x in XS}, {"kk": 2}, ConfigError, "diagnose: .*kk"),
        ({x.sample_id: "a" for x in XS}, {"divergences": True}, ConfigError, "names no base"),
    ],
)
def test_a_diagnosis_that_cannot_be(
    responses: object, keys: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        coevo.diagnose(Letters(), XS, responses, **{"divergences": False, **keys})  # type: ignore[arg-type]


def test_no_result_to_read(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file; give the folder"):
        coevo.Diagnosis.read(tmp_path)


# --- what an attacker found ---------------------------------------------------------------------------------------------


def test_a_response_is_read_as_a_text_is() -> None:
    blank = [Response(x.sample_id, "\u200b ", "model") for x in XS]
    found = coevo.diagnose(Letters(), XS, blank, divergences=False, k=2, resamples=50)
    assert found.models["model"].shifts["id"].statuses == {"empty": 6}
    ended = [Response(x.sample_id, x.reference + "\n", "model") for x in XS]
    found = coevo.diagnose(Letters(), XS, ended, divergences=False, k=2, resamples=50)
    assert found.models["model"].shifts["id"].remi.value == pytest.approx(0.0)


def test_a_right_answer_without_a_number_is_not_above_a_bad_one() -> None:
    def reward(completions: list[str], reference: list[str], **_: object) -> list[float | None]:
        pairs = zip(completions, reference, strict=True)
        return [1.0 if text == ideal else None if text.endswith("Yes.") else 0.5 for text, ideal in pairs]

    found = coevo.audit(reward, [replace(x, alternatives=(f"{x.reference} Yes.",)) for x in XS])
    assert not found.passed and found.members["loop"].good["reward"].value == 0.0


@pytest.mark.parametrize("ends", [[None], ["<|im_end|>"], [True]])
def test_tokens_that_can_end_nothing(ends: list[object]) -> None:
    for call in (
        lambda: coevo.REMIDReward(Letters(), XS, PLAIN, end_ids=ends),  # type: ignore[arg-type]
        lambda: coevo.RemoteReward("http://127.0.0.1:8600", end_ids=ends),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError, match="end_ids holds .*; expected numbers of tokens"):
            call()


def test_a_recipe_can_be_pickled_whatever_its_algorithm() -> None:
    # a loaded scorer carries its recipe, to find its base
    for method in ("coevolution", "grpo", "ppo"):
        recipe = parse_recipe({"name": "x", "method": method, "loop": {"rpm": {"algorithm": "ppo"}}}, "recipe")
        assert pickle.loads(pickle.dumps(recipe)) == recipe  # noqa: S301


def test_weights_for_real_text_need_no_kind() -> None:
    assert coevo.RealText() == coevo.RealText(kind="real_text")
