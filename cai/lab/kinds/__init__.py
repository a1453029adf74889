"""The kinds of rules, by sort: the words of a reply, its signs, its shape, its manner. `cai.lab.rules` puts them together."""
