"""`python -m mcmandelbrot` is `mcm`."""

import sys

from mcmandelbrot.main import main

if __name__ == "__main__":
    sys.exit(main())
