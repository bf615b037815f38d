"""Measures of rankings, and the significance of their differences."""
