"""What several test modules share; ``tests/`` is on the path (see ``pythonpath``)."""
