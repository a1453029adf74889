"""Conversations that press a model to agree: users who argue back, and the wording to which it gives in most."""
