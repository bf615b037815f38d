"""What a backfill will take, before it starts."""
