"""`python -m mcmandelbrot` is `mcm`."""

import sys

from mcmandelbrot.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
