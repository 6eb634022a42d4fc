"""What a team's own data needs before a recipe can use it, where a model has to write."""
