"""What a model is asked under a principle, before any is: the prompts of each stage, their tokens and limits."""
