"""Views of result streams: terminal, JSON lines, JUnit, Markdown, HTML."""
