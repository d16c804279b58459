"""Simulations: arguments become recipes, recipes a dask graph, and that a lazy Dataset."""
