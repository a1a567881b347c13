"""The soak: days full of trouble, planned from a seed, lived through in ``sim.world`` and judged afterwards.

``plan`` draws a day from the seed, ``day`` is that day as data, ``living`` lives it, ``record`` is what shoppers
and till saw, ``judge`` holds journal, ledger and record against each other, ``shrink`` finds the shortest day that
still fails, ``run`` does one after the other and reports.
"""
