"""``python -m asynqueue.wire``."""

from asynqueue.wire.command import main

if __name__ == "__main__":
    main()
