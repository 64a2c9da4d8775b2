"""Inference for many questions: clips are watched once and kept, questions answered together, whenever they come."""
