"""The protocol of a link: messages and frames, authentication, limits, liveness."""
