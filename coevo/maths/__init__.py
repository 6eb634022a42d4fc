"""Pure functions on arrays: information (M1-M4, D1-D3, A1) and intervals. Knows numbers, never configs or models."""
