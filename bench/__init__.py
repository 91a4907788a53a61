"""What `make bench` measures: tables of figures, each beside its limit, from one run on the machine at hand.

Owns the measuring; docs/benchmarks.md says what each figure means. Everything runs on loopback, in processes
(and containers) that are started for a table and ended with it. Imports `autostart.admin.client` of the
gateway and nothing else of it: what is measured is the program as it is installed, from outside.
"""
