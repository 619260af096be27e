"""Small data sets in the formats of the benchmarks, drawn from the photographs inside the package of scikit-image."""
