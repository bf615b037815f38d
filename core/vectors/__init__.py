"""Vectors made elsewhere: opening a file (files), reading it (npy, parquet), loading it into a version (load)."""
