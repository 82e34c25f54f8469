"""A command of WASI 0.2 in Python: prints a greeting, the variable COLOUR and its arguments. `exit CODE` ends with that code if it
is 0 or 1, and `cat PATH` prints a file."""

import os
import sys
from pathlib import Path

from wit_world import exports


class Run(exports.Run):
    def run(self) -> None:
        match sys.argv[1:]:
            case ["exit", code]:
                sys.exit(int(code))
            case ["cat", path]:
                print(Path(path).read_text(), end="")
            case arguments:
                print("hello from python", os.environ.get("COLOUR", ""), *arguments, sep="\n")
