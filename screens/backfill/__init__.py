"""Tab 2: backfills."""
