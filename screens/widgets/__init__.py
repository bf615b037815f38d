"""Widgets that any tab may use."""
