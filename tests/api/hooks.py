"""What Schemathesis must know of the host: names that exist, so that requests reach more than "there is no such thing"."""

import json
import os
import random

import schemathesis

HINTS = json.loads(os.environ.get("TESSERA_HINTS", "{}"))


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Three times in four a parameter of the path is the name of something."""
    if path_parameters:
        for name, known in HINTS.items():
            if name in path_parameters and known and random.random() < 0.75:
                path_parameters[name] = random.choice(known)
    return path_parameters
