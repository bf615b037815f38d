"""Measures of rankings, and what their differences say."""
