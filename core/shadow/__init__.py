"""Shadow traffic: a sample of users' queries goes to a candidate too, off the users' path."""
