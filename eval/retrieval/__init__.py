"""Image retrieval on revisited Oxford5k and Paris6k, by a backbone's CLS token."""
