"""Textual screens and widgets: each shows one part of core."""
