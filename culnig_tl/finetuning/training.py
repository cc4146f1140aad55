"""The training itself, by Hugging Face's Trainer: the loss, what is kept on disk, and when it stops.

Only the trained weights and their optimiser state are kept, not the model: a saved state is small.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .. import io
from ..engine.cloze import ClozePrompt
from ..engine.prompts import Prompt, pad_rows
from ..engine.world import world
from ..errors import FineTuningError
from .config import TrainingConfig

STATES, LOSSES = 10, 50
"""States that are saved during a training, the last two of them kept; losses that are recorded."""
COMPLETE = "complete"
"""Written last into a saved state: a state without it is half of one."""
TRAINED = "trained.safetensors"
IGNORED = -100
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trained:
    """What is known of a finished training."""

    steps: int
    losses: list[tuple[int, float]]
    """(step, mean loss since the row before)."""
    trained_parameters: int
    optimizer_bytes: int
    """State of the optimiser on this device: two numbers for every trained parameter, none for the others."""
    processes: int
    seconds: float
    """Of the last start; a training that was stopped took longer."""


class NotFinite(Exception):
    """The loss or a gradient is NaN or infinite; the text says which."""


def run_training(
    net: Any,
    prompts: Sequence[Prompt] | Sequence[ClozePrompt],
    tokenizer: Any,
    config: TrainingConfig,
    *,
    folder: Path,
    bfloat16: bool,
    cpu: bool,
    progress: bool,
    resume: bool = False,
) -> Trained:
    """Trains, in place, the parameters of `net` that require a gradient.

    Args:
        net: a Hugging Face model, or peft's wrapper of one.
        folder: for saved states. With `resume` the training continues from the last complete one.

    Raises `FineTuningError` where the loss or a gradient is NaN or infinite; the last good state is kept.
    """
    arguments = _arguments(config, len(prompts), folder, bfloat16, cpu)
    trainer = _Trainer(
        model=net,
        args=arguments,
        train_dataset=list(prompts),  # type: ignore[arg-type]  (anything with a length and items)
        data_collator=lambda chosen: _collate(chosen, tokenizer),
        compute_loss_func=answer_loss,
        callbacks=[_Guard(), *([_Progress()] if progress else [])],
    )
    trainer.remove_callback(PrinterCallback)
    started, state = time.monotonic(), last_complete(folder) if resume else None
    try:
        trainer.train(resume_from_checkpoint=str(state) if state else None)
    except NotFinite as error:
        step = trainer.state.global_step
        kept = _drop_from(folder, step) if arguments.should_save else last_complete(folder)
        saved = f"the last good state is kept in {kept}" if kept else "no state had been saved yet"
        raise FineTuningError(
            f"the {error} is NaN or infinite after {step} steps on {prompts[0].question.task}: {saved}; "
            f"start again with a learning rate below {config.learning_rate:g} "
            "(--overwrite or another --output-dir)"
        ) from error
    return Trained(
        steps=trainer.state.global_step,
        losses=[(int(row["step"]), row["loss"]) for row in trainer.state.log_history if "loss" in row],
        trained_parameters=sum(p.numel() for p in net.parameters() if p.requires_grad),
        optimizer_bytes=_optimizer_bytes(trainer.optimizer),
        processes=world().size,
        seconds=time.monotonic() - started,
    )


def _arguments(
    config: TrainingConfig, questions: int, folder: Path, bfloat16: bool, cpu: bool
) -> TrainingArguments:
    processes = world().size
    batches = -(-questions // config.batch_size)
    steps = config.epochs * -(-batches // config.accumulation)
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulation // processes,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=config.seed,
        data_seed=config.seed,
        bf16=bfloat16,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and processes > 1 else None,
        save_strategy="steps",
        save_steps=max(1, steps // STATES),
        save_total_limit=2,
        logging_steps=max(1, steps // LOSSES),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not cpu,
        dataloader_num_workers=0,
    )
    if processes == 1:
        # Trainer would put the model on every GPU it sees, and has no public way to say otherwise
        arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]
    return arguments


def answer_loss(
    outputs: Any, labels: Int[Tensor, "batch token"], num_items_in_batch: Any = None
) -> Float[Tensor, ""]:
    """Cross entropy of the answers' tokens, in float32, as their share of a step's mean over such tokens.

    Raises `NotFinite`.
    """
    targets = labels[:, 1:].flatten()  # as many positions as were computed; not all rows have an answer there
    logits = outputs.logits.flatten(0, 1).float()  # [batch * token, vocab]
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / num_items_in_batch
    if not torch.isfinite(loss):
        raise NotFinite("loss")
    return loss


def last_complete(folder: Path) -> Path | None:
    """The last state that was written to its end."""
    states = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).is_file()]
    return max(states, key=_step_of, default=None)


def _step_of(state: Path) -> int:
    found = re.fullmatch(r"checkpoint-(\d+)", state.name)
    return int(found[1]) if found else -1


def _drop_from(folder: Path, step: int) -> Path | None:
    """Removes the states whose weights gave NaN or infinity; returns the last one before."""
    for state in folder.glob("checkpoint-*"):
        if _step_of(state) >= step > 0:
            shutil.rmtree(state)
    return last_complete(folder)


def _optimizer_bytes(optimizer: Any) -> int:
    """Bytes of the optimiser's state, step counts left out."""
    tensors = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    return sum(tensor.nbytes for tensor in tensors if tensor.ndim)


def answered(prompt: Prompt | ClozePrompt) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(the prompt's tokens, the right answer's): a label, or the right option's words."""
    if isinstance(prompt, ClozePrompt):
        return prompt.context, prompt.texts[prompt.right]
    return prompt.tokens, (prompt.answer_token,)


def _collate(prompts: Sequence[Prompt | ClozePrompt], tokenizer: Any) -> dict[str, Any]:
    """Prompts with their answers, padded on the left, so that the answer's last token follows the last
    position of each."""
    pairs = [answered(prompt) for prompt in prompts]
    tokens, mask = pad_rows([(*asked, *answer[:-1]) for asked, answer in pairs], tokenizer, CPU)
    longest = max(len(answer) for _, answer in pairs)
    return {
        "input_ids": tokens,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "logits_to_keep": longest,
        "use_cache": False,
        # Trainer counts what is not -100, with or without the first column.
        "labels": torch.tensor([[IGNORED] * (1 + longest - len(a)) + list(a) for _, a in pairs]),
    }


class _Trainer(Trainer):
    """Keeps the trained weights alone, where `Trainer` would write the whole model."""

    def _trained(self) -> dict[str, Tensor]:
        model: Any = self.model
        return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from safetensors.torch import save_file

        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            save_file({name: p.contiguous() for name, p in self._trained().items()}, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from safetensors.torch import load_file

        stored = load_file(Path(resume_from_checkpoint) / TRAINED)
        for name, parameter in self._trained().items():
            parameter.copy_(stored[name])


class _Guard(TrainerCallback):
    """Stops at a gradient that is NaN or infinite, before the weights take it in; marks complete states."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            raise NotFinite("gradient")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.should_save:
            io.write(Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE, b"")


class _Progress(ProgressCallback):
    """Trainer's bar, with the loss at its end instead of a line for each."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{logs['loss']:.3f}")
