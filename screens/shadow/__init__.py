"""Tab 5: shadow traffic."""
