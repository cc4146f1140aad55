"""Other methods beside CULNIG, on the same sites, model and questions: `score_by(model, task, "atp")`.

    culnig, culnig-sum, culnig-mean                     activation x gradient; max, sum or mean over tokens
    culnig-post, culnig-sum-post, culnig-mean-post      the same, MLP neurons read behind the activation function
    ig, ig-all                                          integrated gradients (knowledge neurons)
    atp, atp-qk                                         attribution patching, and with AtP*'s correction for q and k
    lape, cape                                          entropy of activation over countries, and less language neurons
    mean-difference                                     mean activation on the question less that on its control
    random                                              what a method that knows nothing gets

One file a method, which has its formula. `culnig_tl.analyses.agreement` says how true each is, `culnig_tl.analyses.methods` runs all of it.
"""

from __future__ import annotations

from .registry import METHODS, parse_methods
from .scoring import score_by, score_methods

__all__ = ["METHODS", "parse_methods", "score_by", "score_methods"]
