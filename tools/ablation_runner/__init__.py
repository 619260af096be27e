"""The paper's ablations: which recipe is which row, what they cost, and one job after another that trains and evaluates them."""
