"""collectord: a streaming collector for the operational state of a network."""

__version__ = "0.1.0"
