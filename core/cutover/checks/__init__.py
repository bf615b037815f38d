"""The guards' own looks at the database and the encoder, a module for each family."""
