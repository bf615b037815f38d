"""Gates: the file format and the verdicts."""
