"""What holds for every test: no gate, preload or malloc tunable of the caller, no display, repeatable examples."""

import os

from hypothesis import settings

for name in list(os.environ):
    if name.startswith(("HAKMEM_", "MALLOC_")) or name in ("LD_PRELOAD", "GLIBC_TUNABLES"):
        del os.environ[name]
os.environ["MPLBACKEND"] = "Agg"

# No deadline: the time a test takes says nothing on a shared machine.
settings.register_profile("hakmem", deadline=None, derandomize=True)
settings.load_profile("hakmem")
