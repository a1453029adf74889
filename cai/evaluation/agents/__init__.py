"""Agents in a small world: files and mails in memory, in which what a model does is a fact."""
