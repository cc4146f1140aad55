"""Native attention, and memory that runs out."""

from __future__ import annotations

import pytest
import torch

from culnig_tl.data.neurons import SITES
from culnig_tl.engine import probe
from culnig_tl.engine.checkpoint import BatchQueue
from culnig_tl.engine.run import each_batch
from culnig_tl.engine.workarounds import native_attention
from culnig_tl.engine.world import World
from culnig_tl.errors import ScoreError

from .helpers import difference, score

# ------------------------------------------------------------------------------------------- native attention


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
    """As with float64, or compatibility mode in TransformerLens 3.9, where the bridge's masked rows are
    NaN."""
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


# ----------------------------------------------------------------------------------------------------- memory


def little_memory(model, where: str):
    """A context in which backward passes run out of memory there with more than two questions."""

    def explode(gradient, hook):
        if gradient.shape[0] > 2:
            raise torch.OutOfMemoryError("out of memory")

    return model.hooks(bwd_hooks=[(where, explode)])


MIDDLE = pytest.mark.parametrize(
    "where", ["blocks.0.mlp.hook_pre", "blocks.1.attn.hook_k", "blocks.2.mlp.hook_pre"]
)
"""Where memory runs out in the middle of the backward pass, after some layers were summed."""


@MIDDLE
def test_out_of_memory_halves_without_losing_or_doubling(where, loaded, task):
    model = loaded("llama")
    right = score(model, task)
    with little_memory(model, where):
        scores = score(model, task, batch_size=6)
    assert difference(scores, right) < 1e-4
    assert scores.questions == right.questions
    assert scores.p_answer == pytest.approx(right.p_answer, rel=1e-5)


@MIDDLE
@pytest.mark.parametrize("method", ["culnig", "atp", "lape", "mean-difference"])
def test_out_of_memory_spoils_no_method_of_a_shared_pass(method, where, loaded, task):
    model, names = loaded("llama"), ["culnig", "atp", "lape", "mean-difference"]
    right = score(model, task, method=method)
    with little_memory(model, where):
        scores = score(model, task, batch_size=6, method=names)[method]
    assert difference(scores, right) < 1e-4


def test_batches_are_halved_until_they_fit(loaded, task, caplog):
    model = loaded("llama")
    with little_memory(model, "blocks.1.attn.hook_k"):
        sizes = score(model, task, batch_size=6).metadata["batch_sizes"]
    assert "out of memory with 6 questions" in caplog.text
    assert sizes == [2, 1, 2, 1]


def test_later_batches_are_not_tried_in_the_size_that_failed():
    tried = []

    def work(batch, done):
        tried.append(len(batch))
        if len(batch) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    plan = [list(range(8)), list(range(8, 16)), list(range(16, 18))]
    queue = BatchQueue.deal(plan, World())
    each_batch(plan, [10] * 18, work, lambda count: None, queue=queue)
    assert [end - start for _, start, end in queue.ran] == [2] * 9
    assert tried.count(8) == 1


def test_a_single_question_that_does_not_fit_is_an_error():
    def work(batch, done):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(ScoreError, match="out of memory on a single question of 7 tokens"):
        each_batch([[0]], [7], work, lambda count: None)


def test_other_errors_go_through():
    def work(batch, done):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        each_batch([[0, 1]], [7, 7], work, lambda count: None)


def test_a_batch_may_take_a_share_of_free_memory(monkeypatch, loaded):
    monkeypatch.setattr(probe, "free_memory", lambda device: 200 * 1000)
    assert probe.tokens_that_fit(loaded("llama"), 1000.0) == 200 * probe.SHARE_OF_MEMORY


def test_every_layer_keeps_activations(loaded):
    bytes_per_token = probe.probe_gradients(loaded("llama"), SITES, list(range(3, 40))).bytes_per_token
    assert bytes_per_token > 3 * 48 * 4


def test_auto_batches_shrink_with_free_memory(loaded, task, monkeypatch):
    model = loaded("llama")
    bytes_per_token = probe.probe_gradients(model, SITES, list(range(3, 40))).bytes_per_token
    assert len(score(model, task).metadata["batch_sizes"]) == 1
    monkeypatch.setattr(probe, "free_memory", lambda device: int(200 * bytes_per_token))
    assert len(score(model, task).metadata["batch_sizes"]) > 1
