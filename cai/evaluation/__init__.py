"""Before and after: the same prompts, judged and compared in pairs."""
