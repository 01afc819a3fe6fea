"""The part that decides: small deterministic state machines without Twisted, clock, thread, socket or randomness."""
