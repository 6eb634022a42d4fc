"""`coevo reward`: the reward of a role-playing model behind HTTP, for trainers in other processes."""

from __future__ import annotations

import argparse
import ipaddress

from coevo.cli.console import Commands, command, path, say, warn, whole
from coevo.cli.listening import answer, refuse_taken_port
from coevo.errors import ConfigError

REWARD_EXAMPLES = """examples:
  coevo reward --serve --scorer Qwen/Qwen3-4B --data dialogues.json --splits IDTrain
  coevo reward --serve --scorer runs/scorer --data dialogues.json --splits IDTrain --port 8600

  curl -s localhost:8600/reward -H 'Content-Type: application/json' \\
       -d '{"sample_id": ["IDTrain-00000"], "completions": ["Good evening."]}'

From Python: coevo.RemoteReward("http://127.0.0.1:8600") is a reward function for TRL. R6 compares with other scenarios of
the file, so name the splits that you train on: other splits give other numbers.
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    reward = command(commands, "reward", "serve the reward of a role-playing model over HTTP", REWARD_EXAMPLES)
    reward.add_argument("--serve", action="store_true", required=True, help="answer requests until interrupted")
    reward.add_argument("--scorer", type=path, required=True, metavar="RUN|MODEL", help="a run's scorer, or a chat model")
    reward.add_argument("--data", type=path, required=True, metavar="FILE", help="scenarios with references")
    reward.add_argument("--splits", nargs="+", metavar="SPLIT", help="of the file; all if omitted")
    reward.add_argument(
        "--weights", choices=("real_text", "plain"), default="real_text", help="R6 (default), or R1 + R4 as for the world"
    )
    reward.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default 127.0.0.1, this machine alone")
    reward.add_argument("--port", type=whole, default=8600, metavar="N", help="default 8600")
    reward.set_defaults(run=_reward)


def _reward(options: argparse.Namespace) -> int:
    try:
        import uvicorn

        from coevo.rewards.served import application
    except ImportError:
        raise ConfigError(
            "coevo reward needs fastapi and uvicorn; install them with: pip install -e '.[serve]' in the checkout"
        ) from None
    refuse_taken_port(options.host, options.port)
    from coevo.config import RealText, RewardWeights
    from coevo.data import load_scenarios
    from coevo.diagnosis.scorers import load_scorer
    from coevo.rewards.remid import REMIDReward

    scenarios = load_scenarios(options.data, options.splits)
    weights = RealText(kind="real_text") if options.weights == "real_text" else RewardWeights()
    reward = REMIDReward(load_scorer(options.scorer), scenarios, weights)
    if not _loopback(options.host):
        warn(f"--host {options.host}: whoever reaches this machine can ask for rewards; there is no key.")
    say(f"{len(scenarios)} scenarios, scorer {reward.version[:12]}; Ctrl-C ends, a second one at once.")
    say(f"http://{_in_url(options.host)}:{options.port}/reward")
    answer(uvicorn.Server(uvicorn.Config(application(reward), host=options.host, port=options.port, log_level="warning")))
    return 0


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
