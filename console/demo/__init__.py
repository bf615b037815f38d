"""The demo: a corpus that every engineer can judge, and the whole story on it."""
