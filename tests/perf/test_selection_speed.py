"""3 million neurons x 16 countries: under one second and 2 GiB."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import resource, sys, time
    import numpy as np
    from culnig_tl.data.neurons import Site
    from culnig_tl.data.scores import NeuronScores
    from culnig_tl.method.selection import select_general, select_specific, select_random, select_rival
    from culnig_tl.tasks.countries import COUNTRIES

    rng = np.random.default_rng(0)
    widths = {Site.MLP_GATE: 20_000, Site.ATTN_Q: 6_000, Site.ATTN_K: 2_000, Site.ATTN_V: 2_000}
    def make(task):
        arrays = {s: rng.standard_normal((16, 100, w), dtype=np.float32) for s, w in widths.items()}
        return NeuronScores(arrays, COUNTRIES, (10,) * 16, (1.0,) * 16, 100, (10,) * 16, {"task": task})
    a, b, c = make("culture"), make("control"), make("countryrc")
    start = time.process_time(); general = select_general(a, b, c); general_s = time.process_time() - start
    start = time.process_time(); select_specific(a, b, c); specific_s = time.process_time() - start
    select_random(general, a, match="layer"); select_rival(general, c)
    print(general_s, specific_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
    """
)


@pytest.mark.perf
def test_three_million_neurons_and_sixteen_countries():
    out = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    ).stdout.split()
    general, specific, gib = map(float, out[-3:])
    print(
        f"general {general:.2f} s, specific {specific:.2f} s (processor time), "
        f"peak {gib:.2f} GiB with the scores themselves"
    )
    assert general < 1 and specific < 1 and gib < 2
