"""`coevo completion`: the script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse

from coevo.cli.console import Commands, command, say

COMPLETION_EXAMPLES = """examples:
  coevo completion bash > ~/.local/share/bash-completion/completions/coevo
  coevo completion zsh > ~/.zfunc/_coevo        # with ~/.zfunc in fpath, before compinit
"""


def add(commands: Commands) -> None:
    """Adds the command."""
    completion = command(commands, "completion", "print a shell's completion script", COMPLETION_EXAMPLES)
    completion.add_argument("shell", choices=("bash", "zsh"), metavar="SHELL", help="bash or zsh")
    completion.set_defaults(run=_completion)


def _completion(options: argparse.Namespace) -> int:
    import shtab

    from coevo.cli import make_parser

    parser, _ = make_parser()
    say(shtab.complete(parser, shell=options.shell))
    return 0
