"""Everything outside the terminal, simulated: hosts, readers, faults."""
