"""The job of a backfill as rows: its state, settings, throttles, spend and dead letters."""
