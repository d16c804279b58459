"""The compiled integrators: arrays of a block of runs in, arrays of trajectories out."""
