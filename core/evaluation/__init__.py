"""Judged queries, and how well versions answer them."""
