"""One adapter per runtime that can execute a graph; each session lives in its own worker process."""
