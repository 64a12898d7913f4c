"""The command `prism`, also as `python -m prism_cnn`."""

import os
import sys

from .errors import PrismError
from .program import environment, find


def main() -> None:
    """Becomes the program, with the words of this command line."""
    try:
        program = find()
        os.execve(program, ["prism", *sys.argv[1:]], environment())
    except PrismError as error:
        sys.exit(f"prism: error: {error.line}")
    except OSError as error:
        sys.exit(f"prism: error: {program} cannot be started: {error.strerror}; install prism-cnn again")


if __name__ == "__main__":
    main()
