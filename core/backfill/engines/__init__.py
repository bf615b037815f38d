"""Where the workers of a backfill run: in processes of this machine, or on Ray."""
