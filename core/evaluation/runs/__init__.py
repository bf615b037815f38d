"""Runs: a version's answers to the queries of a set."""
