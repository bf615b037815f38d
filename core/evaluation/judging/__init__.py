"""Judging: what to judge next, by people and by models."""
