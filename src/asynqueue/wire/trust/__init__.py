"""What makes a wire trustworthy: kinds of endpoints, TLS and certificates. `docs/security.md` names the attackers."""
