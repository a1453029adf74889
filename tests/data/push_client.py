"""Pushes a folder to each repository that it is told of, in JSON lines on stdin, and says what came of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cai.data.hub import check_push, push_folder
from cai.errors import CaiError

for line in sys.stdin:
    asked = json.loads(line)
    os.environ["HF_TOKEN"] = asked["token"]
    try:
        check_push(asked["repository"])
        answer = {"address": push_folder(Path(sys.argv[1]), asked["repository"], private=asked.get("private", False))}
    except CaiError as error:
        answer = {"problem": str(error)}
    print(json.dumps(answer), flush=True)
