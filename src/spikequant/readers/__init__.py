"""Readers run or print an `IntNet`; none of them imports torch."""
