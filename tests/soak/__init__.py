"""Random lives of many children at once, with every byte accounted for.

``python -m soak --minutes 1 --seed S``, with ``tests/`` on the path; ``nox -s soak`` does it.
Choices follow from the seed, moments from the machine.
"""
