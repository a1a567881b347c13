"""A model checker over the tables and the course that ship: every interleaving, to a stated bound."""
