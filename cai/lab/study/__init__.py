"""The questions of the method, put to the lab's small world whose truth is known: `cai lab study`.

`recipes` says what is tried, `bench` makes and trains it, `grid` goes through it and can be killed, `cells` is what is kept of
each, `figures` and `results_page` say what came out.
"""
