"""Walk a graph and judge every operator of a runtime against the oracle."""
