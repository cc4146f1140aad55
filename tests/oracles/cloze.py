"""The cloze form, word for word and slowly: plain hooks on the Hugging Face model, one option at a time.

Shares no code with the package. For a question with option texts y_1 .. y_k, of which y is right:

    LL_o    = sum of the log-probabilities of y_o's tokens after the prompt
    prior_o = the same after the control ("Answer:")
    P(y|x)  = softmax over the options of (LL_o - prior_o), LL_o ("sum") or LL_o / characters ("length"), at y
    s_i     = n_i * dP(y|x)/dn_i: once for each token of the prompt, which the options share, and for each token
              of the options' own; and the same of the control and its options, where there is a prior
    s       = max, sum or mean over those i
    S_c     = sum over the questions of c of P * s
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from .literal import BLOCK, INPUTS, OUTPUTS, _parts
from .other_methods import _modules, counterparts
from .plain_ablation import column

Place = tuple[str, int]
"""(site, layer)."""


def encoded(tokenizer: Any, prompt: str, text: str) -> tuple[list[int], list[int]]:
    """(tokens of the prompt, tokens that the text adds)."""
    context = tokenizer(prompt)["input_ids"]
    return context, tokenizer(f"{prompt} {text}")["input_ids"][len(context) :]


@contextmanager
def kept(model: Any):
    """What the linear modules give, or are given: (name, layer) -> the tensor, with its gradient to come."""
    found: dict[Place, torch.Tensor] = {}
    handles = []

    def keep_output(name: str, layer: int):
        def hook(module: Any, arguments: Any, output: torch.Tensor) -> None:
            output.retain_grad()
            found[name, layer] = output

        return hook

    def keep_input(layer: int):
        def hook(module: Any, arguments: Any) -> None:
            arguments[0].retain_grad()
            found["post", layer] = arguments[0]

        return hook

    for path, module in model.named_modules():
        block = BLOCK.search(path)
        if block is None or "vision" in path:
            continue
        layer, name = int(block[1]), block[2]
        if name in OUTPUTS:
            handles.append(module.register_forward_hook(keep_output(name, layer)))
        if name in INPUTS or path.endswith("mlp.c_proj"):
            handles.append(module.register_forward_pre_hook(keep_input(layer)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def log_likelihood(model: Any, context: list[int], text: list[int]) -> torch.Tensor:
    """LL of the text's tokens after those of the context."""
    logits = model(torch.tensor([context + text])).logits[0]
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return sum(log_p[len(context) - 1 + place, token] for place, token in enumerate(text))


def likelihoods(model: Any, tokenizer: Any, prompt: str, texts: tuple[str, ...]) -> list[float]:
    """LL of every option."""
    with torch.no_grad():
        return [log_likelihood(model, *encoded(tokenizer, prompt, text)).item() for text in texts]


class Read:
    """One prompt with every option after it: LL, and the tensors whose gradients are wanted."""

    def __init__(self, model: Any, tokenizer: Any, prompt: str, texts: tuple[str, ...]) -> None:
        self.model, self.ll, self.rows = model, [], []
        for text in texts:
            context, own = encoded(tokenizer, prompt, text)
            with kept(model) as tensors:
                self.ll.append(log_likelihood(model, context, own))
            self.rows.append((len(context), tensors))

    def products(self) -> dict[Place, list[torch.Tensor]]:
        """n_i * dP/dn_i, a vector of neurons for each i, once P's gradients are there."""
        found: dict[Place, list[torch.Tensor]] = {}
        for name, layer in self.rows[0][1]:
            sites = ["mlp.post"] if name == "post" else OUTPUTS[name]
            for part, site in enumerate(sites):
                shared, own = 0.0, []
                for shared_tokens, tensors in self.rows:
                    tensor = tensors[name, layer]
                    product = (tensor.detach() * tensor.grad)[0]
                    product = _parts(name, product, self.model.config.get_text_config())[part]
                    shared = shared + product[:shared_tokens]
                    own += list(product[shared_tokens:])
                found[site, layer] = [*shared, *own]
        return found


def question(
    model: Any, tokenizer: Any, asked: Any, normalise: str
) -> tuple[dict[Place, list[torch.Tensor]], float]:
    """({(site, layer): s_i for every i}, P) of one question.

    Args:
        asked: has `prompt`, `control` (None for a control question), `texts`, `options` and `answer`.
    """
    reads = [Read(model, tokenizer, asked.prompt, asked.texts)]
    compared = torch.stack(reads[0].ll)
    if normalise == "length":
        compared = compared / torch.tensor([float(len(text)) for text in asked.texts]).to(compared)
    if normalise == "unconditional" and asked.control is not None:
        reads.append(Read(model, tokenizer, asked.control, asked.texts))
        compared = compared - torch.stack(reads[1].ll)
    p = torch.softmax(compared, 0)[asked.options.index(asked.answer)]
    p.backward()
    found: dict[Place, list[torch.Tensor]] = {}
    for read in reads:
        for place, products in read.products().items():
            found.setdefault(place, []).extend(products)
    model.zero_grad(set_to_none=True)
    return found, p.item()


def scores(
    model: Any,
    tokenizer: Any,
    asked: Any,
    *,
    how: str = "max",
    normalise: str = "unconditional",
    clamp: bool = False,
) -> dict[tuple[str, str, int], torch.Tensor]:
    """S_c as {(country, site, layer): one number per neuron}."""
    totals: dict[tuple[str, str, int], torch.Tensor] = {}
    for one in asked:
        found, p = question(model, tokenizer, one, normalise)
        for (site, layer), products in found.items():
            table = torch.stack(products)
            s = {"max": table.amax(0), "sum": table.sum(0), "mean": table.mean(0)}[how]
            if clamp:
                s = s.clamp(min=0)
            key = (one.country, site, layer)
            totals[key] = totals.get(key, 0.0) + p * s
    return totals


# ------------------------------------------------------------------------------------------------ other methods


def probability(model: Any, tokenizer: Any, asked: Any, around: Any) -> torch.Tensor:
    """P(y|x) by the unconditional normalisation, with `around(context, own)` entered for every row."""
    sums = []
    for prompt in (asked.prompt, asked.control):
        of_options = []
        for text in asked.texts:
            context, own = encoded(tokenizer, prompt, text)
            with around(context, own):
                of_options.append(log_likelihood(model, context, own))
        sums.append(torch.stack(of_options))
    return torch.softmax(sums[0] - sums[1], 0)[asked.options.index(asked.answer)]


def exact_effect(model: Any, tokenizer: Any, asked: Any, site: str, layer: int, neuron: int) -> float:
    """P lost when the neuron is zeroed at every token, of the control's rows too."""

    @contextmanager
    def zeroed(context: list[int], own: list[int]):
        def hook(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
            changed = output.clone()
            width = output.shape[-1]
            changed[..., column(module_name, site, neuron, width, model.config.get_text_config())] = 0
            return changed

        ((module_name, module),) = [
            (name, module)
            for _, where, name, module in _modules(model)
            if where == layer and site in OUTPUTS.get(name, [])
        ]
        handle = module.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    with torch.no_grad():
        unchanged = probability(model, tokenizer, asked, lambda *row: nullcontext())
        return float(unchanged - probability(model, tokenizer, asked, zeroed))


def integrated_gradients(
    model: Any, tokenizer: Any, asked: Any, path: str, *, reads_input: bool, everywhere: bool, steps: int = 20
) -> torch.Tensor:
    """v / m * sum over k of dP(k/m v)/dw, of what the module at `path` gives or is given: at every token of
    every row, or at those whose logits predict an option's token."""
    module, total = model.get_submodule(path), 0.0
    for k in range(1, steps + 1):
        scaled: list[tuple[torch.Tensor, torch.Tensor, slice]] = []

        @contextmanager
        def around(context: list[int], own: list[int]):
            where = slice(0, None) if everywhere else slice(len(context) - 1, len(context) + len(own) - 1)

            def change(tensor: torch.Tensor) -> torch.Tensor:
                factors = torch.ones(tensor.shape[1], 1)
                factors[where] = k / steps  # noqa: B023
                leaf = (tensor.detach() * factors).requires_grad_(True)
                scaled.append((tensor.detach(), leaf, where))  # noqa: B023
                return leaf

            handle = (
                module.register_forward_pre_hook(lambda _, given: (change(given[0]), *given[1:]))
                if reads_input
                else module.register_forward_hook(lambda _, given, output: change(output))
            )
            try:
                yield
            finally:
                handle.remove()

        gradients = torch.autograd.grad(
            probability(model, tokenizer, asked, around), [leaf for _, leaf, _ in scaled]
        )
        for (value, _, where), gradient in zip(scaled, gradients):
            total = total + (value * gradient / steps)[0, where].sum(0)
    return total


def look(model: Any, tokenizer: Any, asked: Any) -> list[list[tuple[list[int], list[int], dict]]]:
    """Of the prompt's rows and the control's: (context, own tokens, place -> (activation, gradient of P))."""
    reads = [Read(model, tokenizer, prompt, asked.texts) for prompt in (asked.prompt, asked.control)]
    compared = torch.stack(reads[0].ll) - torch.stack(reads[1].ll)
    torch.softmax(compared, 0)[asked.options.index(asked.answer)].backward()
    model.zero_grad(set_to_none=True)
    config, found = model.config.get_text_config(), []
    for prompt, read in zip((asked.prompt, asked.control), reads):
        rows = []
        for text, (_, tensors) in zip(asked.texts, read.rows):
            places = {}
            for (name, layer), tensor in tensors.items():
                sites = ["mlp.post"] if name == "post" else OUTPUTS[name]
                activations, gradients = (_parts(name, t[0], config) for t in (tensor.detach(), tensor.grad))
                places |= {(site, layer): pair for site, *pair in zip(sites, activations, gradients)}
            rows.append((*encoded(tokenizer, prompt, text), places))
        found.append(rows)
    return found


def mean_difference(model: Any, tokenizer: Any, asked: Any) -> dict[Place, torch.Tensor]:
    """Mean activation over the prompt's tokens, once, and every option's; less the same of the control."""
    means = []
    for rows in look(model, tokenizer, asked):
        of_place: dict[Place, torch.Tensor] = {}
        for place in rows[0][2]:
            vectors = list(rows[0][2][place][0][: len(rows[0][0])])
            for context, _, places in rows:
                vectors += list(places[place][0][len(context) :])
            of_place[place] = torch.stack(vectors).mean(0)
        means.append(of_place)
    return {place: means[0][place] - means[1][place] for place in means[0]}


def attribution_patching(model: Any, tokenizer: Any, asked: Any) -> dict[Place, torch.Tensor]:
    """Sum over the tokens of all rows of (n - n of the control) * gradient: a token of the prompt is compared
    with its counterpart in the control's prompt (or the mean over the common suffix of the prompts and all
    options), an option's with that of the same option."""
    clean, control = look(model, tokenizer, asked)
    (context, *_), (bare, *_) = clean[0], control[0]
    where, suffix = counterparts(context, bare)
    totals: dict[Place, torch.Tensor] = {}
    for place in clean[0][2]:
        there = [row[2][place][0] for row in control]
        known = [there[0][position] for position in suffix]
        known += [vector for activation in there for vector in activation[len(bare) :]]
        mean = torch.stack(known).mean(0)
        total = 0.0
        for (_, own, places), other in zip(clean, there):
            activation, gradient = places[place]
            for i in range(len(context)):
                instead = mean if where[i] is None else other[where[i]]
                total = total + (activation[i] - instead) * gradient[i]
            for j in range(len(own)):
                total = (
                    total + (activation[len(context) + j] - other[len(bare) + j]) * gradient[len(context) + j]
                )
        totals[place] = total
    return totals
