"""The command line: ``mixlab``. Each command is one call into the library.

Commands are looked up by name and imported when they are chosen, so that ``mixlab report`` does not wait for torch.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from typing import Any

from mixlab.errors import UserError, unknown

# Command -> (module, function, one line of help). Words after the command go to the function.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "study run": ("study", "run", "train what is missing of a study, then rank and report"),
    "study status": ("study", "status", "how far the runs of a study are"),
    "train": ("single", "train", "train one model"),
    "evaluate": ("single", "evaluate", "metrics of a finished run on a split"),
    "predict": ("single", "predict", "class probabilities for image files, as CSV"),
    "report": ("study", "report", "write the report of a study from its run folders"),
    "doctor": ("doctor", "doctor", "what works on this machine and why not the rest; --check computes and compares"),
    "list": ("listing", "show", "models, mixers or datasets, with --json for programs"),
}
INTERRUPTED, BAD_INPUT = 130, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0 well, 1 some runs failed, 2 bad input or a file that cannot be read or written, 130 Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return _dispatch(words)
    except UserError as error:
        _complain(str(error))
        return BAD_INPUT
    except KeyboardInterrupt:
        _complain("interrupted; finished epochs are saved, the same command goes on from there")
        return INTERRUPTED
    except BrokenPipeError:  # `mixlab predict ... | head`
        sys.stderr.close()
        return 1
    except OSError as error:  # a disk that is full, a folder that cannot be read
        where = f"{error.filename}: " if error.filename is not None else ""
        _complain(f"{where}{error.strerror or error}")
        return BAD_INPUT
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        _print_help()
        return 0
    if words[0] == "--version":
        from mixlab import __version__

        print(__version__)
        return 0
    name, rest = _command(words)
    module, function, _ = COMMANDS[name]
    command: Any = getattr(importlib.import_module(f"mixlab.cli.{module}"), function)
    return int(command(rest) or 0)


def _command(words: list[str]) -> tuple[str, list[str]]:
    two = " ".join(words[:2])
    if two in COMMANDS:
        return two, words[2:]
    if words[0] in COMMANDS:
        return words[0], words[1:]
    inner = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if inner and len(words) > 1 and words[1] in ("-h", "--help"):
        _print_help()
        raise SystemExit(0)
    raise unknown("command", two if inner else words[0], COMMANDS)


def _print_help() -> None:
    print("usage: mixlab COMMAND [options]\n\nWhich token mixer should I train on my images?\n\ncommands:")
    for name, (_, _, text) in COMMANDS.items():
        print(f"  {name:<14} {text}")
    print("\n`mixlab COMMAND --help` tells the options of a command.")


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(message, style="red"), soft_wrap=True)


def _terminate(number: int, frame: Any) -> None:
    # As Ctrl-C: children are killed, states written. 128 + the signal is the shell's convention.
    raise SystemExit(128 + number)
