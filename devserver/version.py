"""The version of both programs, and of the package that brings them: here and nowhere else."""

__version__ = "0.1.0"
