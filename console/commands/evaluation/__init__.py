"""`revector evaluate`, `queries` and `judge`: judged query sets, and evaluations of two versions."""
