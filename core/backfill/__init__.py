"""The backfill of a version: a job in the database (job), and the worker that does it (worker)."""
