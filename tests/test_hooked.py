"""A real `HookedTransformer`: TransformerLens 3.9 alone (``make test-tl39``)."""

from __future__ import annotations

import pytest
import torch

from culnig_tl import NeuronSet, ablate, ablation_hooks, describe, evaluate, load_model, score_prompt
from culnig_tl.data.neurons import SITES, Site
from culnig_tl.engine.cloze import asked_of
from culnig_tl.engine.models import last_logits
from culnig_tl.engine.prompts import encode, pad
from culnig_tl.errors import ModelError

from . import families
from .builders import questions_with_texts
from .helpers import difference, largest_error, plain_model, rows, score
from .oracles import literal

try:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
except ImportError:
    pytest.skip("TransformerLens 4 has no HookedTransformer", allow_module_level=True)


@pytest.fixture(scope="module")
def hooked(checkpoints):
    """`hooked(family)`: through `load_model`, or built by hand where the class cannot read the checkpoint."""
    made = {}

    def model(family):
        if family not in made:
            made[family] = (
                gemma_by_hand(checkpoints(family))
                if family.startswith("gemma3")
                else load_model(checkpoints(family), kind="hooked", device="cpu")
            )
        return made[family]

    return model


def gemma_by_hand(folder):
    """What a user of TransformerLens 3 does for a Gemma 3 that is on no list."""
    from transformer_lens.pretrained.weight_conversions.gemma import convert_gemma_weights

    plain = plain_model(folder)
    config = plain.config.get_text_config()
    rope = config.rope_parameters
    cfg = HookedTransformerConfig(
        d_model=config.hidden_size,
        d_head=config.head_dim,
        n_heads=config.num_attention_heads,
        d_mlp=config.intermediate_size,
        n_layers=config.num_hidden_layers,
        n_ctx=config.max_position_embeddings,
        eps=config.rms_norm_eps,
        d_vocab=config.vocab_size,
        act_fn="gelu_pytorch_tanh",
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_dim=config.head_dim,
        rotary_base=int(rope["full_attention"]["rope_theta"]),
        rotary_base_local=int(rope["sliding_attention"]["rope_theta"]),
        use_attn_scale=True,
        attn_scale=config.query_pre_attn_scalar**0.5,
        n_key_value_heads=config.num_key_value_heads,
        gated_mlp=True,
        final_rms=True,
        use_normalization_before_and_after=True,
        use_qk_norm=True,
        window_size=config.sliding_window,
        use_local_attn=True,
        attn_types=["local" if kind == "sliding_attention" else "global" for kind in config.layer_types],
        tokenizer_prepends_bos=True,
    )
    tokenizer = families.tokenizer()
    tokenizer.init_kwargs = {**tokenizer.init_kwargs, "name_or_path": str(folder), "add_bos_token": True}
    model = HookedTransformer(cfg, tokenizer)
    weights = convert_gemma_weights(plain, cfg)
    model.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()


# Of gemma3-text: the rotary embedding of its full attention is not scaled, as HookedTransformer's is not.
@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gemma3-text", "gpt2", "gpt-neox"])
def test_equals_the_literal_method(family, hooked, checkpoints):
    task = families.questions(4)
    model = hooked(family)
    assert type(model).__name__ == "HookedTransformer"
    sites = list(describe(model).widths)
    assert set(sites) >= set(SITES)
    expected = literal.scores(plain_model(checkpoints(family)), rows(families.tokenizer(), task))
    expected = {key: value for key, value in expected.items() if Site(key[1]) in sites}
    for batch_size in (1, len(task)):
        assert largest_error(score(model, task, sites=sites, batch_size=batch_size), expected) < 1e-4


BOTH = pytest.mark.parametrize("family", ["llama", "gemma3-text", "gpt2"])
NEURONS = NeuronSet.from_indices(
    [("mlp.gate", 1, n) for n in range(0, 48, 3)] + [("attn.k", 0, 5), ("attn.v", 2, 1)]
)


@BOTH
def test_its_scores_are_those_of_the_bridge(family, hooked, loaded, task):
    assert difference(score(hooked(family), task), score(loaded(family), task)) < 1e-4


@BOTH
def test_a_row_for_every_option_gives_what_the_bridge_reads_from_one(family, hooked, loaded):
    asked, model, bridge = questions_with_texts(4).cloze(), hooked(family), loaded(family)
    rows_of = [asked_of(each, asked).prompts[0].one_row for each in (model, bridge)]
    assert rows_of == [False, True]
    assert difference(score(model, asked), score(bridge, asked)) < 1e-4
    mine, theirs = (
        evaluate(each, asked, progress=False).table["log_likelihoods"] for each in (model, bridge)
    )
    for one, other in zip(mine, theirs):
        assert one == pytest.approx(other, abs=1e-4)


@BOTH
def test_its_probability_of_an_answer_is_that_of_the_bridge(family, hooked, loaded, task):
    mine, theirs = (score_prompt(model, task[0]).p_answer for model in (hooked(family), loaded(family)))
    assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("scale", [0.0, 2.0])
@BOTH
def test_its_answers_under_ablation_are_those_of_the_bridge(family, scale, hooked, loaded, task):
    mine, theirs = (
        evaluate(model, task, ablate=NEURONS, scale=scale, progress=False).table["p_answer"].to_numpy()
        for model in (hooked(family), loaded(family))
    )
    assert mine == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_ablation_hooks_do_what_ablate_does(scale, hooked):
    model, tokens = hooked("llama"), torch.arange(10, 30)[None]
    with ablate(model, NEURONS, scale=scale):
        expected = model(tokens)
    fwd_hooks = ablation_hooks(model, NEURONS, scale=scale)
    assert torch.equal(model.run_with_hooks(tokens, fwd_hooks=fwd_hooks), expected)


def test_last_logits_alone_are_the_last_of_all(hooked, task):
    model = hooked("gpt2")
    tokens, mask = pad(encode(model.tokenizer, task.questions[:3]), model.tokenizer, torch.device("cpu"))
    with torch.no_grad():
        whole = model(tokens, attention_mask=mask, padding_side="left")[:, -1]
        assert torch.allclose(last_logits(model, tokens, mask), whole, atol=1e-5)


def test_nothing_stays_on_it(hooked, task):
    model = hooked("llama")
    tokens = torch.arange(10, 30)[None]
    before = model(tokens)
    score(model, task)
    with ablate(model, NeuronSet.from_indices([("mlp.gate", 0, 1)])):
        assert not torch.equal(model(tokens), before)
    assert torch.equal(model(tokens), before)
    assert all(not point.fwd_hooks and not point.bwd_hooks for point in model.hook_dict.values())


def test_a_checkpoint_that_the_class_does_not_know(checkpoints):
    for family in ("falcon3", "gemma3"):
        with pytest.raises(ModelError, match='use kind="bridge"'):
            load_model(checkpoints(family), kind="hooked", device="cpu")
