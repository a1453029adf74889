"""What authors of principles ask: previews, tests, audits and comparisons."""
