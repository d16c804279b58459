"""Side-by-side benchmarks: ``python -m tests.benchmarks`` prints the tables of the manual."""
