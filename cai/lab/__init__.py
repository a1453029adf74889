"""The embedded default: a small world in plain English with exact truth, its checker, and the lessons taught from it.

The world, the checker and the teacher import no torch; only `cai.lab.drafts` and the adapter's training do.
"""
