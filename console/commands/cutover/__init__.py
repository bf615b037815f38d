"""`revector cutover` and `revector rollback`: guards, requests, the flip and the watch after it."""
