"""Rules that keep spoilt text out of the data sets, or flag it. What each takes out is counted under its name and can be seen.

Every family of rules has a module. `settings` says what is on, `sieve` asks all rules over all rows in a stream. Pure functions
of text: no model but the language detector's table.
"""
