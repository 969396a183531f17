"""The rules: facts in, decision out; no clock, SQL, network or randomness. Standard library only."""
