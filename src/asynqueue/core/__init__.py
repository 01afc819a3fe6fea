"""What decides: small deterministic machines without Twisted, clock, thread, socket or randomness."""
