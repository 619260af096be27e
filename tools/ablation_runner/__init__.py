"""The ablations: which recipe is which row, what they cost, one job after another, and the comparison with the published rows."""
