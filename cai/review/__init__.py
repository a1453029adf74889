"""People look at what AI feedback made: what they are asked, where they answer, and what their verdicts change.

`queue` decides what matters most, `desk` asks and takes verdicts, `flow` lays them over a run's labels and holds back what must
wait for a person, `figures` estimates label quality from them, `server` is the local web page, `exchange` reads and
writes them for other programs.
"""
