"""Audits of live models and optimizers: what decays, how strongly and why, and what looks wrong."""
