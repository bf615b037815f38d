"""Tab 3: two versions side by side."""
