"""A lakehouse that a small data team can run themselves and trust."""

__version__ = "0.1.0"
