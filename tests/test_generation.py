"""Answers in words: batches against single answers, the cache against computing anew, ablation at every
step."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from culnig_tl import NeuronSet, Question, ablate, load_model
from culnig_tl.data.neurons import Site
from culnig_tl.engine.models import hook_name, last_logits
from culnig_tl.engine.prompts import pad
from culnig_tl.engine.workarounds import native_attention
from culnig_tl.errors import ScoreError
from culnig_tl.finetuning.baking import bake
from culnig_tl.method.answers import generation
from culnig_tl.method.answers.generation import (
    WAYS,
    Decoder,
    Way,
    choose_way,
    decoding,
    encode_open,
    end_tokens,
    generate,
    text_of,
)

from . import families
from .builders import some_neurons
from .helpers import plain_model

STEPS = 8
PROMPTS = (
    "What do people in Japan eat?",
    "Which festival is held in Spain? " * 4,
    "The most common sport in Mexico is one of these: football, cricket, hockey, golf.",
    "A",
)


def ask(prompts=PROMPTS, **changed):
    return [
        Question(
            task="t",
            id=f"q{i}",
            cluster=f"q{i}",
            prompt=text,
            options=(),
            answer="rice",
            accepted=("rice",),
            language="en",
            **changed,
        )
        for i, text in enumerate(prompts)
    ]


def encoded(model, prompts=PROMPTS):
    return encode_open(model.tokenizer, ask(prompts))


@torch.no_grad()
def by_the_letter(model, prompt, ends, steps=STEPS):
    """Every token by a whole forward pass of all tokens before it, alone and without padding."""
    tokens, said = torch.tensor([list(prompt.tokens)]), []
    while len(said) < steps:
        token = int(last_logits(model, tokens, torch.ones_like(tokens)).argmax())
        if token in ends:
            break
        said.append(token)
        tokens = torch.cat([tokens, torch.tensor([[token]])], dim=1)
    return said


@torch.no_grad()
def run(model, prompts, way, ends, steps=STEPS):
    return generate(model, prompts, way, ends, max_new_tokens=steps)


@torch.no_grad()
def step_logits(model, way, prompts, written, staying):
    """Logits after the prompts and after each given token [prompt, step]; only the rows `staying` are in the
    batch from the second step on."""
    tokens, mask = pad(prompts, model.tokenizer, torch.device("cpu"))
    found = []
    with decoding(model, way) as decoder:
        for column in range(written.shape[1] + 1):
            found.append(decoder.step(tokens, mask))
            if column == 0:
                decoder.keep(staying)
                mask, written = mask[staying], written[staying]
            tokens = written[:, column : column + 1]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    return found


@torch.no_grad()
def whole_pass(model, prompt, tokens):
    """The last position's logits of a whole pass over one row, without padding."""
    row = torch.tensor([[*prompt.tokens, *tokens.tolist()]])
    return last_logits(model, row, torch.ones_like(row))[0]


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_every_step_of_a_padded_batch_equals_a_whole_pass_of_each_alone_with_neurons_off_too(family, loaded):
    """Logits, on tokens that are given: left to itself, a random Gemma says the same token for ever."""
    model = loaded(family, chat=True)
    prompts = encoded(model)
    assert len({len(p.tokens) for p in prompts}) == len(prompts)  # every row but one is padded
    written = torch.randint(10, 500, (len(prompts), 3), generator=torch.Generator().manual_seed(0))
    staying = torch.tensor([0, 2])
    unchanged = whole_pass(model, prompts[0], written[0])
    with ablate(model, some_neurons(model, share=0.2)):
        way = choose_way(model, prompts[-1])
        assert (
            way.cached
            and way.padding
            and way.native == (family not in {"phi3", "phi3-sliding", "gpt2", "gpt-neox"})
        )
        steps = step_logits(model, way, prompts, written, staying)
        for column, found in enumerate(steps):
            rows = range(len(prompts)) if column == 0 else staying.tolist()
            right = torch.stack([whole_pass(model, prompts[row], written[row, :column]) for row in rows])
            assert float((found - right).abs().max() / right.abs().max()) < 1e-4, column
        assert (
            float((steps[-1][0] - unchanged).abs().max() / unchanged.abs().max()) > 1e-2
        )  # the neurons are off


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3-sliding", "gpt2"])
def test_a_batch_says_what_each_says_alone(family, loaded):
    model = loaded(family, chat=True)
    prompts, ends = encoded(model), end_tokens(model)
    way = choose_way(model, prompts[-1])
    plain = [by_the_letter(model, prompt, ends) for prompt in prompts]
    assert run(model, prompts, way, ends) == plain
    assert [run(model, [prompt], way, ends)[0] for prompt in prompts] == plain
    with ablate(model, some_neurons(model, share=0.2)):
        suppressed = [by_the_letter(model, prompt, ends) for prompt in prompts]
        assert run(model, prompts, way, ends) == suppressed
    assert suppressed != plain
    assert run(model, prompts, way, ends) == plain  # nothing stayed


@pytest.mark.parametrize("family", ["llama", "phi3", "gpt2"])
def test_suppressed_answers_are_those_of_a_model_without_these_weights(family, loaded, checkpoints, tmp_path):
    """Hugging Face's own generate, on the checkpoint whose weights are zeroed, one question at a time."""
    model = loaded(family, chat=True)
    neurons = some_neurons(model, share=0.2)
    baked = plain_model(bake(checkpoints(family, chat=True), neurons, tmp_path / "baked"))
    prompts, ends = encoded(model), end_tokens(model)
    with ablate(model, neurons):
        mine = run(model, prompts, choose_way(model, prompts[-1]), ends)
    for prompt, said in zip(prompts, mine):
        tokens = torch.tensor([list(prompt.tokens)])
        options = {
            "do_sample": False,
            "max_new_tokens": STEPS,
            "eos_token_id": sorted(ends),
            "pad_token_id": 0,
        }
        theirs = baked.generate(tokens, attention_mask=torch.ones_like(tokens), **options)[
            0, tokens.shape[1] :
        ].tolist()
        assert said == [token for token in theirs if token not in ends]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_gives_the_same(way, loaded):
    model = loaded("qwen3", chat=True)
    prompts, ends = encoded(model), end_tokens(model)
    some = prompts if way.padding else prompts[:1]
    assert run(model, some, way, ends) == run(model, some, Way(False, False, True), ends)


def test_hooks_fire_at_the_prompt_and_at_every_token_that_is_written(loaded):
    model = loaded("llama", chat=True)
    seen: dict[str, list[int]] = {}

    def look(activation, hook):
        seen.setdefault(hook.name, []).append(activation.shape[1])

    names = [
        hook_name(model, Site.parse(site), layer)
        for site, layer in (("mlp.gate", 1), ("attn.q", 2), ("attn.v", 0))
    ]
    prompt = encoded(model)[:1]
    with model.hooks(fwd_hooks=[(name, look) for name in names]):
        said = run(model, prompt, WAYS[0], frozenset(), steps=6)[0]
    assert len(said) == 6
    for name in names:
        assert seen[name] == [len(prompt[0].tokens), 1, 1, 1, 1, 1]


def test_a_way_in_which_a_hook_does_not_fire_is_refused(loaded):
    model = loaded("llama", chat=True)
    short = encoded(model)[-1]
    assert choose_way(model, short) == WAYS[0]
    # This hook point lies inside the eager attention alone.
    assert choose_way(model, short, ["blocks.0.attn.hook_pattern"]) == WAYS[1]


def test_a_cache_that_gives_other_logits_is_not_used(loaded, monkeypatch):
    model = loaded("llama", chat=True)

    class Forgetful(Decoder):
        def __init__(self, model, *, cached):
            super().__init__(model, cached=cached)
            self.wrong = cached

        def step(self, tokens, mask):
            logits = super().step(tokens, mask)
            return logits.roll(1) if self.wrong else logits

    monkeypatch.setattr(generation, "Decoder", Forgetful)
    assert choose_way(model, encoded(model)[-1]) == Way(native=False, cached=False, padding=True)


def test_native_attention_is_as_it_was_afterwards(loaded):
    model = loaded("llama", chat=True)
    before = model.original_model.config._attn_implementation
    run(model, encoded(model), WAYS[0], end_tokens(model))
    assert model.original_model.config._attn_implementation == before
    with native_attention(model) as possible:
        assert possible


def test_a_model_that_cannot_be_padded_or_cached_is_still_asked(loaded):
    """Fused weights: native attention is not possible, and says so."""
    model = loaded("phi3", chat=True)
    with pytest.raises(ScoreError, match="native attention"):
        run(model, encoded(model), WAYS[0], end_tokens(model))
    assert choose_way(model, encoded(model)[-1]) == WAYS[1]


def test_an_answer_ends_with_its_turn(loaded, checkpoints):
    chat, base = loaded("llama", chat=True), loaded("llama")
    name = chat.tokenizer.convert_tokens_to_ids
    assert end_tokens(chat) == {name("</s>"), name("<|end|>")}
    assert end_tokens(base) == {name("</s>")}
    prompts = encoded(chat)
    free = run(chat, prompts, WAYS[0], frozenset())
    for row, said in enumerate(
        free
    ):  # whichever token is called the end, the answer stops before its first time
        end = said[STEPS // 2]
        assert run(chat, prompts, WAYS[0], frozenset({end}))[row] == said[: said.index(end)]


def test_the_checkpoints_own_ends_count(checkpoints, loaded):
    model = loaded("gpt2", chat=True)
    before = model.original_model.generation_config.eos_token_id
    try:
        model.original_model.generation_config.eos_token_id = [2, 77]
        assert end_tokens(model) >= {2, 77}
    finally:
        model.original_model.generation_config.eos_token_id = before


class Scripted:
    """Logits that spell out what each row is to say."""

    def __init__(self, rows, vocab=512):
        self.rows, self.vocab, self.kept, self.time = [list(row) for row in rows], vocab, [], 0

    def decoding(self, model, way):
        return nullcontext(self)

    def step(self, tokens, mask):
        logits = torch.zeros(len(self.rows), self.vocab)
        for place, row in enumerate(self.rows):
            token = row[self.time] if self.time < len(row) else 3
            logits[place, abs(token)] = 1.0 if token >= 0 else float("nan")
        self.time += 1
        return logits

    def keep(self, rows):
        self.kept.append(len(self.rows))
        self.rows = [self.rows[int(i)] for i in rows]


def test_rows_that_are_done_leave_the_batch_and_others_go_on(loaded, monkeypatch):
    model, end = loaded("llama", chat=True), 2
    said = [[10, end], [11, 12, 13, 14, 15, end], [end], [16, 17, 18, end]]
    script = Scripted(said)
    monkeypatch.setattr(generation, "decoding", script.decoding)
    assert generate(model, encoded(model), WAYS[0], frozenset({end}), max_new_tokens=20) == [
        row[:-1] for row in said
    ]
    assert script.kept == [4, 2]


def test_nan_stops_with_the_question_unless_its_answer_is_done(loaded, monkeypatch):
    model, end = loaded("llama", chat=True), 2
    script = Scripted([[end, -5, -5], [11, 12, end], [11, -5, end], [10, 10, end]])
    monkeypatch.setattr(generation, "decoding", script.decoding)
    with pytest.raises(ScoreError, match="'q2' gives NaN"):
        generate(model, encoded(model), WAYS[0], frozenset({end}), max_new_tokens=20)


def test_a_base_model_ends_with_its_line(loaded, monkeypatch):
    model = loaded("llama")
    spell = lambda text: model.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    script = Scripted(
        [spell("\n\n soup\nQuestion: one more"), spell(" rice and bread\n"), spell(" A"), spell(" B")]
    )
    monkeypatch.setattr(generation, "decoding", script.decoding)
    said = generate(model, encoded(model), WAYS[0], end_tokens(model), max_new_tokens=30)
    assert [text_of(model.tokenizer, row) for row in said[:2]] == ["soup", "rice and bread"]
    assert len(said[0]) < 12


def test_the_context_and_the_number_of_tokens_are_limits(loaded):
    model = loaded("llama", chat=True)  # a context of 256 tokens
    long = encoded(model, ["A B C D " * 50, "A"])
    room = 256 - len(long[0].tokens)
    assert 0 < room < 120
    said = run(model, long, WAYS[0], frozenset(), steps=120)
    assert [len(row) for row in said] == [room, 120]
    assert [len(row) for row in run(model, long, WAYS[0], frozenset(), steps=1)] == [1, 1]


def test_without_questions_there_is_nothing_to_encode(loaded):
    assert encode_open(loaded("llama").tokenizer, []) == []


def test_bfloat16_answers(checkpoints):
    model = load_model(checkpoints("llama", chat=True), dtype="bfloat16", device="cpu")
    prompts, ends = encoded(model), end_tokens(model)
    said = run(model, prompts, choose_way(model, prompts[-1]), ends)
    assert all(len(row) <= STEPS for row in said) and any(said)
    assert run(model, prompts, choose_way(model, prompts[-1]), ends) == said


def test_an_empty_set_changes_no_answer(loaded):
    model = loaded("qwen3", chat=True)
    prompts, ends = encoded(model), end_tokens(model)
    before = run(model, prompts, WAYS[0], ends)
    with ablate(model, NeuronSet.from_indices([])):
        assert run(model, prompts, WAYS[0], ends) == before


def test_a_hooked_transformer_answers_too(checkpoints, loaded):
    """TransformerLens 3.9 alone (``make test-tl39``); without a cache, since its own is no Hugging Face
    cache."""
    try:
        from transformer_lens import HookedTransformer
    except ImportError:
        pytest.skip("TransformerLens 4 has no HookedTransformer")
    model, bridge = (
        load_model(checkpoints("llama", chat=True), kind="hooked", device="cpu"),
        loaded("llama", chat=True),
    )
    assert isinstance(model, HookedTransformer)
    prompts, ends = encoded(model), end_tokens(model)
    way = choose_way(model, prompts[-1])
    assert way == Way(native=False, cached=False, padding=True)
    neurons = some_neurons(bridge, share=0.2)
    assert run(model, prompts, way, ends) == run(bridge, prompts, WAYS[0], ends)
    with ablate(model, neurons), ablate(bridge, neurons):
        assert run(model, prompts, way, ends) == run(bridge, prompts, WAYS[0], ends)
