"""Speed, beside a real peer in the same run: ``nox -s bench``."""
