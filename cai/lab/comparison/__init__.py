"""Ways from a constitution to a model, side by side at equal compute, on the lab whose truth is known: `cai lab compare`.

`methods` says what is compared, `compute` what counts as cost, `contest` carries a method out within a budget, `entries` is
what is kept of each, `rounds` goes through methods and seeds and can be killed, `comparison_page` says what came out.
"""
