"""Recipes and grids as jobs of a Ray cluster: what is shipped, how it is submitted, followed and resumed."""
