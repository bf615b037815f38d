"""Tab 4: evaluations."""
