"""The demo: a corpus every engineer can judge, and the whole story told on it."""
