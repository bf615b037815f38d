"""Query sets and what people judged in them."""
