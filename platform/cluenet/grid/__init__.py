"""Ablation grids: many recipes that differ in a few settings, every step that they share done once, one table at the end.

spec       the YAML file, and its axes
cells      the recipes of a grid; everything that is wrong with them
graph      the unique steps of all cells, and what is left of them
execute    which step runs when, retries, failures
asha       asynchronous successive halving: which of several trainings go on
halving    what of a grid is held back by it; rungs, scores, brackets, bounds: its parts
workers    steps as Ray tasks
results    grid.json and grid.csv, from the cells' run folders alone
page       grid.html, tables for the terminal
"""
