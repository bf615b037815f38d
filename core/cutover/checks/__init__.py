"""What each guard checks in the database and the encoder: one module a topic."""
