"""Copy detection on Copydays, by CLS token and pooled patches."""
