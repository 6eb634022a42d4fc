"""What the audit of a reward found: the record, and its table for a reader. Without torch, as reports read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from coevo.config import RealText, RewardWeights
from coevo.config.training import BESIDE
from coevo.data.battery import MEMBERS, OF_TEXT
from coevo.escape import html, plain
from coevo.layout import align
from coevo.maths.stats import Measure

SCHEMA_VERSION = 1
REWARD = "reward"
"""Name of the weighted sum, beside the names of its parts."""
PARTS = tuple(name for name in RewardWeights.model_fields if name not in BESIDE)
ALWAYS = ("information", "register_gap")
"""Parts that every reward is audited by."""
NEARNESS = 0.5
"""A reward that has the reference above each bad answer, and other right answers in fewer scenarios than this, measures
nearness alone."""
REAL_PARTS = ("contrast", "marginal", "shortfall", "echo", "loop", "unended")
"""Parts of R6."""


def parts_of(weights: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts that a reward with these weights is audited by; the others, as agreement (R3), only where they count."""
    if not weights:  # of a function that nobody has taken apart
        return ()
    beside = tuple(name for name, weight in weights.items() if (":" in name or name in BESIDE) and weight)
    if "kind" in weights:
        return (*(part for part in REAL_PARTS if weights.get(part)), *beside)
    return (*(part for part in PARTS if part in ALWAYS or weights.get(part)), *beside)


def alone(part: str, weights: RewardWeights | RealText) -> RewardWeights | RealText:
    """The reward of one part, all others left out."""
    names = REAL_PARTS if isinstance(weights, RealText) else PARTS
    beside: dict[str, Any] = {"functions": {part: 1.0} if part in weights.functions else {}}
    for name in ("judge", "reward_model"):
        own = getattr(weights, name)
        beside[name] = own.model_copy(update={"weight": 1.0}) if name == part else None
    return weights.model_copy(update={name: float(name == part) for name in names} | beside)


@dataclass(frozen=True, slots=True)
class Member:
    """How y* stood against one bad answer."""

    n: int
    """In how many scenarios."""
    statuses: dict[str, int]
    """Why the bad answer could not be scored (`empty`, `too_long`), and how often; it is then below y* by its status."""
    above: dict[str, Measure]
    """By reward and by part alone: in what share of the scenarios y* was above, with Wilson's 95 % interval."""
    subsets: dict[str, float]
    """The reward's share by subset tag."""
    n_good: int = 0
    """Scenarios with another right answer that could be scored."""
    good: dict[str, Measure] = field(default_factory=dict)
    """As `above`, with the worst of the other right answers in y*'s place; empty without any."""

    @property
    def weakest(self) -> tuple[str, float]:
        """The subset in which y* was above least often, and how often."""
        return min(self.subsets.items(), key=lambda entry: entry[1])


@dataclass(frozen=True, slots=True)
class Agreement:
    """Spearman's rank correlation of a reward with the exact share of right slots, over graded answers."""

    within: Measure
    """Mean over scenarios, each with its own answers: what a GRPO group sees. 95 % interval by the bootstrap."""
    overall: float
    """Of all answers of all scenarios together."""
    with_battery: float
    """As `within`, the battery's members among the answers. It has no threshold: how a scorer ranks texts of a form that it
    has never seen, padding against a loop, is not settled by any likelihood; that y* is above them is."""

    @property
    def least(self) -> float:
        """The smaller of the two that must reach the threshold."""
        return min(self.within.value, self.overall)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an audit found."""

    scorer: str
    """The scorer's version; with a reasoner, both, joined by a plus sign."""
    weights: dict[str, Any]
    """Of the recipe, its kind and other settings included."""
    at_least: float
    agreement_at_least: float
    n: int
    """Scenarios whose y* could be scored."""
    unscored: int
    """Scenarios left out because y* could not."""
    members: dict[str, Member]
    agreement: dict[str, Agreement]
    """By reward and by part alone; empty where the share of right slots is not known."""
    n_graded: int
    """Graded answers that were scored, over all scenarios."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that stand beside the reward."""
        return parts_of(self.weights)

    @property
    def failures(self) -> list[str]:
        """A sentence for each threshold that the weighted reward misses. A part alone need not pass."""
        found = []
        for name, member in self.members.items():
            share = member.above[REWARD].value
            if share < self.at_least:
                tag, least = member.weakest
                found.append(
                    f"{_title(name)}: the reference is above it in {share:.1%} of {member.n} scenarios, "
                    f"{self.at_least:.1%} are asked for; least often in {tag}, {least:.1%}"
                )
        found += self._below_good(bool(found))
        if self.agreement and self.agreement[REWARD].least < self.agreement_at_least:
            agreement = self.agreement[REWARD]
            found.append(
                f"rank agreement with the share of right slots: {agreement.within.value:.2f} within scenarios and "
                f"{agreement.overall:.2f} overall, {self.agreement_at_least:.2f} is asked for in both"
            )
        return found

    def _below_good(self, reference_fails: bool) -> list[str]:
        """The same for the other right answers."""
        found = [
            f"{_title(name)}: another right answer is above it in {share.value:.1%} of {member.n_good} scenarios, "
            f"{self.at_least:.1%} are asked for"
            for name, member in self.members.items()
            if (share := member.good.get(REWARD)) and share.value < self.at_least
        ]
        worst = min((member.good[REWARD].value for member in self.members.values() if member.good), default=1.0)
        if worst < NEARNESS and not reference_fails:
            found.append(
                "the reference is above every bad answer and other right answers are not: this reward measures how near an "
                "answer's numbers are to the reference's, and not whether it is right"
            )
        return found

    @property
    def passed(self) -> bool:
        """Whether the weighted reward reaches every threshold."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """As in evaluation/audit.json; the sentences are for who reads it, and are worked out again."""
        return {"schema_version": SCHEMA_VERSION} | asdict(self) | {"passed": self.passed, "failures": self.failures}

    def to_markdown(self) -> str:
        """The heading, the table and the conclusion."""
        head, *rows = cells(self)
        rule = ["---"] * 2 + ["---:"] * (len(head) - 2)
        lines = [head, rule, *([plain(cell) for cell in row] for row in rows)]
        table_ = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{plain(heading(self))}\n\n{table_}\n\n{plain(conclusion(self))}\n"

    def __str__(self) -> str:
        return table(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html(table(self))}</pre>"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Verdict:
        """The inverse of `to_dict`."""
        values = {name: record[name] for name in cls.__dataclass_fields__}
        values["members"] = {name: _read(entry) for name, entry in record["members"].items()}
        values["agreement"] = {
            name: Agreement(**{**entry, "within": Measure(**entry["within"])}) for name, entry in record["agreement"].items()
        }
        return cls(**values)


def _read(entry: Mapping[str, Any]) -> Member:
    """A member of the record; those of older runs know of no good answers."""
    shares = {name: {part: Measure(**share) for part, share in entry.get(name, {}).items()} for name in ("above", "good")}
    return Member(**{**entry, **shares})


def heading(verdict: Verdict) -> str:
    """What was audited, in one line."""
    total = " + ".join(f"{verdict.weights[name]:g} × {name}" for name in verdict.parts) or "a function of somebody's own"
    if "kind" in verdict.weights:
        total += ", {overshoot:g} of the overshoot, length^{length:g}, {negatives} negatives".format(**verdict.weights)
    left_out = f" ({verdict.unscored} more have a reference that cannot be scored)" if verdict.unscored else ""
    graded = f", {verdict.n_graded:,} graded answers" if verdict.agreement else ""
    scorer = "+".join(version[:12] for version in verdict.scorer.split("+"))
    by = f"; scorer {scorer}" if scorer else ""
    return f"Reward: {total}. {verdict.n} scenarios{left_out}{graded}{by}."


def cells(verdict: Verdict) -> list[list[str]]:
    """The table, its head first: in how many of a hundred scenarios y* is above, then the rank agreement."""
    asked = asked_good(verdict)
    rows = [
        [
            "reference above (%)",
            "",
            f"{REWARD} [95 %]",
            *(f"{part} alone" for part in verdict.parts),
            "by status",
            "weakest",
            *(["another right one above"] if asked else []),
        ]
    ]
    for name, member in verdict.members.items():
        share, good = member.above[REWARD], member.good.get(REWARD)
        tag, least = member.weakest
        rows.append(
            [
                _title(name),
                "fails" if min(share.value, good.value if good else 1) < verdict.at_least else "",
                _percent(share),
                *(f"{100 * member.above[part].value:.1f}" for part in verdict.parts),
                ", ".join(f"{status} {count}" for status, count in member.statuses.items()) or "-",
                f"{tag} {100 * least:.0f}" if least < 1 else "-",
                *([_percent(good) if good else "-"] if asked else []),
            ]
        )
    return rows + [row + ["-"] * asked for row in _agreement_cells(verdict)]


def _percent(share: Measure) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]".replace("%", "")


def _agreement_cells(verdict: Verdict) -> list[list[str]]:
    if not verdict.agreement:
        return []
    reward, parts = verdict.agreement[REWARD], [verdict.agreement[part] for part in verdict.parts]
    within = f"{reward.within.value:.2f} [{reward.within.low:.2f}, {reward.within.high:.2f}]"

    def row(title: str, fails: bool, shown: str, others: Sequence[float]) -> list[str]:
        return [title, "fails" if fails else "", shown, *(f"{other:.2f}" for other in others), "-", "-"]

    at_least = verdict.agreement_at_least
    return [
        row("agreement, within", reward.within.value < at_least, within, [part.within.value for part in parts]),
        row("agreement, overall", reward.overall < at_least, f"{reward.overall:.2f}", [part.overall for part in parts]),
        row("within, battery too", False, f"{reward.with_battery:.2f}", [part.with_battery for part in parts]),
    ]


def conclusion(verdict: Verdict) -> str:
    """Whether it passed, in one sentence, or in one for each failure; after a pass, what could contradict it."""
    if verdict.passed:
        agreement = f", and agreement {verdict.agreement_at_least:.2f}" if verdict.agreement else ""
        asked = asked_good(verdict)
        above = "the reference and another right answer are" if asked else "the reference is"
        said = f"The reward passes: {above} above each bad answer in at least {verdict.at_least:.0%}{agreement}."
        return "\n".join([said, *(f"  {doubt}." for doubt in _doubts(verdict))])
    return "\n".join(["The reward fails:", *(f"  {failure}." for failure in verdict.failures)])


def asked_good(verdict: Verdict) -> bool:
    """Whether other right answers stood against the bad ones."""
    return any(member.good for member in verdict.members.values())


def _doubts(verdict: Verdict) -> list[str]:
    """What a pass leaves open: intervals that reach below the threshold, subsets below it, references without a score."""
    asked, found = verdict.at_least, []
    members = verdict.members.items()
    lows = [(member.above[REWARD].low, name) for name, member in members]
    lows += [(member.good[REWARD].low, f"{name}, of other right answers") for name, member in members if member.good]
    low, name = min(lows, default=(1.0, ""))
    if low < asked:
        found.append(f"within noise it may be less: the 95 % intervals reach down to {low:.1%} ({_title(name)})")
    (tag, share), name = min(
        ((member.weakest, name) for name, member in verdict.members.items()), key=lambda w: w[0][1], default=(("", 1.0), "")
    )
    if share < asked:
        found.append(f"in a single subset it is less: {share:.1%} in {tag} ({_title(name)})")
    if verdict.members and not asked_good(verdict):
        found.append("no other right answer was asked about: a reward for nearness to the reference would pass as well")
    mute = {
        name: 2 * sum(member.statuses.values()) > member.n for name, member in verdict.members.items() if name != "empty"
    }
    silent = [name for name in mute if mute[name]]
    if silent:
        found.append(f"most of these bad answers got no number, and count as below: {', '.join(map(_title, silent))}")
    if few := [_title(name) for name in MEMBERS if name in OF_TEXT and 2 * _times(verdict, name) < verdict.n]:
        found.append(f"in most scenarios there was nothing to ask about: {', '.join(few)}")
    if verdict.unscored:
        every = verdict.n + verdict.unscored
        found.append(f"nothing is known of {verdict.unscored} of {every} scenarios, whose reference has no score")
    return found


def _times(verdict: Verdict, name: str) -> int:
    """In how many scenarios a member of the battery was asked about."""
    return verdict.members[name].n if name in verdict.members else 0


def table(verdict: Verdict) -> str:
    """Heading, aligned table and conclusion as plain text."""
    return "\n".join([heading(verdict), align(cells(verdict), names=2), conclusion(verdict)])


def _title(name: str) -> str:
    return name.replace("_", " ")
