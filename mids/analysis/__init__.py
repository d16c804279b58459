"""Analyses of trajectories: pure functions from datasets to datasets."""
