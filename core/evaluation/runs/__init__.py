"""Runs: what a version answers to the queries of a set, made and kept."""
