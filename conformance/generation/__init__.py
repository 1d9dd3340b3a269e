"""Valid random calls of operators: one Hypothesis strategy per operator, with the constraints of the spec's text."""
