"""Measured comparisons: `make bench`, or `python -m tests.benchmarks NAME` for one.

They are not tests and pytest collects none of them. Machines differ and are noisy, so nothing here is compared
with a figure from elsewhere: the contenders run in turns in one run, and what counts is their ratio, round by round.
"""
