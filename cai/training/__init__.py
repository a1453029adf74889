"""Preference and supervised training on transformers' Trainer.

`settings` and `results` import no torch; `dpo` and `sft` hold the two entry points.
"""
