"""Run `mcm` by ``python -m mcmandelbrot``."""

import sys

from mcmandelbrot.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
