"""`revector evaluate`, `queries` and `judge`: judged query sets and what they say of two versions."""
