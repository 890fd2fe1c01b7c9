"""Measuring: problems and suites, processes, timing, memory, records, scaling."""
