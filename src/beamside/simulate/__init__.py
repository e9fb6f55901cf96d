"""A simulated microscope: specimens and movies with known truth, for the demo, the tests and the benchmarks."""
