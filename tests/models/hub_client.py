"""Opens the models it is told to (JSON lines of specs on stdin) and says for each what it found, or what was wrong with it."""

from __future__ import annotations

import json
import sys

from cai.errors import CaiError
from cai.models.checking import check_model
from cai.models.loading import load_tokenizer, open_model
from cai.models.spec import ModelSpec

for line in sys.stdin:
    asked = json.loads(line)
    tokenizer_only = asked.pop("tokenizer_only", False)
    spec = ModelSpec.model_validate(asked)
    try:
        if tokenizer_only:
            print(json.dumps({"tokenizer": load_tokenizer(spec).template_fingerprint}), flush=True)
            continue
        checked = [str(problem) for problem in check_model(spec)]
        opened = open_model(spec)
        print(json.dumps({"checked": checked, "source": opened.source, "fingerprint": opened.fingerprint}), flush=True)
    except CaiError as error:
        print(json.dumps({"problem": str(error)}), flush=True)
