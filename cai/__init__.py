"""Run a constitution: draft, critique, revise, label, train, measure."""
