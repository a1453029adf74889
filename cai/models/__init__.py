"""The only place where a model or a tokenizer is found, loaded and asked for its chat template.

`spec` and `checking` need no torch; `loading` and `chat` do, and are imported by those who are about to load a model.
"""
