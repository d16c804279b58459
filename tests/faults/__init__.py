"""Faults on purpose: ``python -m tests.faults`` makes them all and prints what came of each."""
