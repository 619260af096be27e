"""Downstream evaluation: a backbone file in, a `result.json` out."""
