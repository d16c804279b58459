"""Theory against simulation over many targets; ``python -m tests.verification`` writes a report."""
