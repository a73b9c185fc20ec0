"""Image encoders by name: pixels in, tokens on a grid and one pooled vector out."""
