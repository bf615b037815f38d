"""The judging screen."""
