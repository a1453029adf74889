"""`python -m cai.cli` is the same as `cai`."""

from cai.cli import main

main()
