"""Tab 6: guards, requests, the flip and the rollback."""
