"""`revector backfill`: plan, run, steer and look at a backfill."""
