"""The Ray engine: the worker of core/backfill/worker as Ray actors."""
