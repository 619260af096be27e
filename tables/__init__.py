"""Makes the papers' tables, with rows for what was measured here, from result files and reference tables."""
