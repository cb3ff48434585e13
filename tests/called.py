"""What a command of the command line leaves behind; the fixture `call` of conftest.py runs one."""

import json
from typing import NamedTuple


class Called(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        """Standard output, all of it JSON."""
        return [json.loads(line) for line in self.out.splitlines()]
