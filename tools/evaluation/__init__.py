"""One checkpoint through every task and into the tables: what `tools/eval_all.py` calls."""
