"""Measure, compare and explain speed."""
