"""``quota-engine completion``: the completion script of a shell."""

from __future__ import annotations

__all__ = ["completion"]

import sys
from typing import Literal

from quota_engine.cli.output import DONE


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print the script that lets a shell complete commands and options.

    Load it in the start file of the shell, such as ~/.bashrc, or save it in the folder of its completions.

    Example:  quota-engine completion bash > ~/.local/share/bash-completion/completions/quota-engine

    Args:
        shell: bash, zsh or fish.
    """
    from quota_engine.cli.main import COMMANDS, command_app

    # All commands are named, so that each is imported and its options are known.
    script = command_app(tuple(COMMANDS)).generate_completion(prog_name="quota-engine", shell=shell)
    sys.stdout.write(script.rstrip("\n") + "\n")
    return DONE
