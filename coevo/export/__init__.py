"""A run's model as a folder that other programs load, and a gate for a CI."""
