"""Prompts in, data sets out: readers of what people have, writers of what trainers take."""
