"""Suites of cases: small models with their inputs, judged one by one in a runtime."""
