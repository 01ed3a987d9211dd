#!/usr/bin/env python3
"""A log driver: binary:///path/to/loud.py?path=/var/log/loud.log"""

from pyshimio.logging import Driver, Options, absolute_path, run


class Loud(Driver):
    options = Options("loud", {"path": absolute_path}, required=("path",))

    def open(self):
        self.file = open(self.values["path"], "ab", buffering=0)

    def write(self, batch):
        self.file.write(batch.data.upper())


run(Loud)
