"""``python -m asynqueue.wire``: serve a universe from the command line."""

from asynqueue.wire.command import main

if __name__ == "__main__":
    main()
