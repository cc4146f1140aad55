"""Native attention, and memory that runs out."""

from __future__ import annotations

import pytest
import torch

from culnig_tl import passes
from culnig_tl.data.neurons import SITES
from culnig_tl.engine.workarounds import native_attention
from culnig_tl.errors import ScoreError

from .helpers import difference, score

# ------------------------------------------------------------------------------------------------------ native attention


def test_native_attention_is_used_where_nobody_looks_inside(loaded, task):
    model = loaded("llama")
    with native_attention(model) as native:
        assert native
    point = model.hook_dict["blocks.1.attn.hook_pattern"]
    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", lambda pattern, hook: None)]):
        assert point.fwd_hooks
        with native_attention(model) as native:
            assert not native
        seen = score(model, task[:3])
    assert not seen.metadata["native_attention"]
    assert difference(seen, score(model, task[:3])) < 1e-4


@pytest.mark.parametrize("breaks", ["logits", "hooks"])
def test_native_attention_that_goes_wrong_is_dropped_loudly(breaks, loaded, task, monkeypatch, caplog):
    model = loaded("qwen3")
    right = score(model, task[:3])
    attention = model.blocks[1].attn
    inner = attention.original_component
    if breaks == "logits":
        forward = inner.forward
        monkeypatch.setattr(inner, "forward", lambda *a, **k: (forward(*a, **k)[0] * 3, None))
        reason = "logits differ"
    else:
        monkeypatch.setattr(
            inner,
            "forward",
            lambda hidden_states, **k: (hidden_states.new_zeros(hidden_states.shape) + hidden_states, None),
        )
        reason = "no gradient reached blocks.1.attn.hook_"
    scores = score(model, task[:3])
    assert not scores.metadata["native_attention"]
    assert "native attention is not used" in caplog.text and reason in caplog.text
    assert difference(scores, right) < 1e-4


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_padding_that_goes_wrong_is_done_without(family, loaded, task, caplog):
    """As with float64, or compatibility mode in TransformerLens 3.9, where the bridge's masked rows are NaN."""
    model = loaded(family)
    right = score(model, task)

    def poison(pattern, hook):
        hidden = pattern.sum(-1, keepdim=True) < 0.5  # rows of padding, with nothing to look at
        first = (pattern[:, :, -1:, :1] == 0).expand_as(
            hidden
        )  # the last token does not see the first: it is padding
        return pattern.masked_fill(hidden | first, torch.nan)

    with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", poison)]):
        scores = score(model, task, batch_size=6)
    assert "padding is not used, batches hold prompts of one length" in caplog.text
    assert scores.metadata["batch_sizes"] == [1, 1, 2, 2] and difference(scores, right) < 1e-4


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("where", ["blocks.0.mlp.hook_pre", "blocks.1.attn.hook_k", "blocks.2.mlp.hook_pre"])
def test_out_of_memory_halves_without_losing_or_doubling(where, loaded, task, caplog):
    """Memory runs out in the middle of the backward pass, after some layers were summed."""
    model = loaded("llama")
    right = score(model, task)

    def explode(gradient, hook):
        if gradient.shape[0] > 2:
            raise torch.OutOfMemoryError("out of memory")

    with model.hooks(bwd_hooks=[(where, explode)]):
        scores = score(model, task, batch_size=6)
    assert "out of memory with 6 questions" in caplog.text
    assert max(scores.metadata["batch_sizes"]) <= 2 and sum(scores.metadata["batch_sizes"]) == 6
    assert difference(scores, right) < 1e-4
    assert scores.questions == right.questions
    assert scores.p_answer == pytest.approx(right.p_answer, rel=1e-5)


def test_later_batches_are_not_tried_in_the_size_that_failed():
    tried = []

    def work(batch, done):
        tried.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    sizes = passes.each_batch(
        [list(range(8)), list(range(8, 16)), list(range(16, 18))], [10] * 18, work, lambda n: None
    )
    assert sum(sizes) == 18 and tried.count(8) == 1 and max(sizes) <= 3


def test_a_single_question_that_does_not_fit_is_an_error():
    def work(batch, done):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(ScoreError, match="out of memory on a single question of 7 tokens"):
        passes.each_batch([[0]], [7], work, lambda n: None)


def test_other_errors_go_through():
    def work(batch, done):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        passes.each_batch([[0, 1]], [7, 7], work, lambda n: None)


def test_auto_batches_shrink_with_free_memory(loaded, task, monkeypatch):
    model = loaded("llama")
    bytes_a_token = passes.probe(model, SITES, list(range(3, 40))).bytes_a_token
    assert bytes_a_token > 3 * 48 * 4, "every layer stores activations"
    monkeypatch.setattr(passes, "free_memory", lambda device: int(200 * bytes_a_token))
    assert passes.tokens_that_fit(model, bytes_a_token) == pytest.approx(200 * passes.SHARE_OF_MEMORY, abs=1)
    scores = score(model, task)
    assert len(scores.metadata["batch_sizes"]) > 1
