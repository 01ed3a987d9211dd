#!/usr/bin/env python3
"""A log driver: binary:///path/to/loud.py?path=/var/log/loud.log"""

from pyshimio.logging import Driver, LogFile, Options, absolute_path, run


class Loud(Driver):
    options = Options("loud", {"path": absolute_path}, required=("path",))

    def open(self):
        self.file = LogFile(self.values["path"], repair=False)
        self.file.open()

    def write(self, batch):
        self.file.write(batch.as_written.upper())

    def flush(self):
        self.file.flush()


run(Loud)
