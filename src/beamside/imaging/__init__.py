"""The numerics of single-particle work, on torch tensors: one code for CPU and CUDA."""
