"""The ablations: the recipe of each row, its cost, the job that runs it, and the comparison with the published rows."""
