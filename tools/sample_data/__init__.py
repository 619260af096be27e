"""Small data sets in the benchmarks' formats, drawn from the photographs inside scikit-image's package."""
