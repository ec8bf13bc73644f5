"""The jobs of this project: one file each, found by ``discover``."""
