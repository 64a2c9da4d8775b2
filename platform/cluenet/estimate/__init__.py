"""What a recipe's run will cost: parameters, memory, operations, hours and disk, from config.json alone; docs/plan.md.

The model is built on torch's meta device, where tensors have shapes and no content. Nothing here imports Ray.
"""
