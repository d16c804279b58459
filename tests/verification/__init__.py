"""Theory, flows and analyses against references; one command each, too long for a test."""
