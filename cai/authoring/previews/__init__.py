"""What a model is asked under a principle, before any model is asked: the prompts of each stage, their tokens and their limits."""
