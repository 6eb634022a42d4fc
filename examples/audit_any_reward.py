"""Audit somebody's reward function before anything is trained on it.

    python examples/audit_any_reward.py --data dialogues.json --reward my_rewards:helpfulness

Without `--reward` it audits one that pays for length and politeness, which fails: padding and echoes earn more than a good
answer. A reward is called as TRL calls it: `reward(prompts=…, completions=…, sample_id=…, reference=…)`.
"""

import argparse
import importlib
import sys

import coevo


def polite_and_long(completions, **columns):
    """What looks like a reasonable reward: some length, some politeness."""
    return [min(len(text.split()), 60) / 60 + 0.5 * ("please" in text.lower()) for text in completions]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", required=True)
parser.add_argument("--reward", metavar="MODULE:FUNCTION")
parser.add_argument("--chat", action="store_true", help="the reward takes messages, as TRL gives them")
options = parser.parse_args()

reward = polite_and_long
if options.reward:
    module, _, name = options.reward.partition(":")
    if not name:
        parser.error(f"--reward {options.reward}: expected MODULE:FUNCTION, such as my_rewards:helpfulness")
    sys.path.insert(0, "")
    reward = getattr(importlib.import_module(module), name)

try:
    audit = coevo.audit(reward, coevo.load_scenarios(options.data), chat=options.chat)
except coevo.CoevoError as error:
    sys.exit(str(error))
print(audit)
sys.exit(0 if audit.passed else 1)
