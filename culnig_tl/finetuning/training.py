"""The training itself, by Hugging Face's Trainer: what goes in, the loss, what is kept on disk, and when it is stopped.

Only the trained weights and their optimiser state are kept, not the model: a checkpoint of a training is small.
"""

from __future__ import annotations

import logging
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
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainingArguments

from .. import io
from ..engine.prompts import Prompt
from ..engine.world import ranks

log = logging.getLogger(__name__)

STATES, LOSSES = 10, 50
"""States of a training that are saved, the last two of them kept; losses that are recorded."""
COMPLETE = "complete"
"""Written last into a saved state: without it the state is half of one."""
TRAINED = "trained.safetensors"
IGNORED = -100


@dataclass(frozen=True)
class TrainingRun:
    """All that a training needs."""

    net: Any
    """Hugging Face model, or peft's around one; what requires a gradient is trained."""
    prompts: Sequence[Prompt]
    pad: int
    """Token that stands where a prompt is padded."""
    folder: Path
    learning_rate: float
    epochs: int
    batch_size: int
    accumulation: int
    seed: int
    bfloat16: bool
    cpu: bool
    progress: bool


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
    """Of this start; a training that was stopped took longer."""


class Diverged(Exception):
    """The loss, a gradient or a weight is no number any more."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.step = 0
        self.kept: Path | None = None
        """The last state that was good."""


def run_training(run: TrainingRun, *, resume_from: Path | None = None) -> Trained:
    """Trains in place. Raises `Diverged`, with the last good state kept."""
    count, steps = ranks().count, _steps(run)
    arguments = TrainingArguments(
        output_dir=str(run.folder),
        per_device_train_batch_size=run.batch_size,
        gradient_accumulation_steps=run.accumulation // count,
        num_train_epochs=run.epochs,
        learning_rate=run.learning_rate,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=run.seed,
        data_seed=run.seed,
        bf16=run.bfloat16,
        use_cpu=run.cpu,
        ddp_backend="gloo" if run.cpu and count > 1 else None,
        save_strategy="steps",
        save_steps=max(1, steps // STATES),
        save_total_limit=2,
        logging_steps=max(1, steps // LOSSES),
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=not run.cpu,
        dataloader_num_workers=0,
    )
    if count == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = (
            1  # several processes are for torchrun; Trainer would put the model on every GPU by itself
        )
    keeper = _Keeper(run.folder)
    trainer = _Trainer(
        model=run.net,
        args=arguments,
        train_dataset=_Questions(run.prompts),
        data_collator=_Collate(run.pad),
        compute_loss_func=answer_loss,
        callbacks=[keeper],
    )
    _silence(trainer)
    if run.progress and arguments.process_index == 0:
        trainer.add_callback(_Progress())
    started = time.monotonic()
    try:
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    except Diverged as error:
        error.step = trainer.state.global_step
        if arguments.should_save:
            error.kept = keeper.drop_from(error.step)
        raise
    return Trained(
        steps=trainer.state.global_step,
        losses=[(int(row["step"]), row["loss"]) for row in trainer.state.log_history if "loss" in row],
        trained_parameters=sum(p.numel() for p in run.net.parameters() if p.requires_grad),
        optimizer_bytes=_optimizer_bytes(trainer),
        processes=count,
        seconds=time.monotonic() - started,
    )


def answer_loss(
    outputs: Any, labels: Int[Tensor, "batch 2"], num_items_in_batch: Any = None
) -> Float[Tensor, ""]:
    """Cross entropy of the answer token over the whole vocabulary, in float32, as its share of a step's mean over questions.

    Raises `Diverged` where it is no number.
    """
    logits = outputs.logits[:, -1].float()  # [batch, vocab]; the last position alone was computed
    loss = torch.nn.functional.cross_entropy(logits, labels[:, -1], reduction="sum") / num_items_in_batch
    if not torch.isfinite(loss):
        raise Diverged("loss")
    return loss


def last_complete(folder: Path) -> Path | None:
    """The last state that was written to its end."""
    states = [path for path in folder.glob("checkpoint-*") if (path / COMPLETE).is_file()]
    return max(states, key=_step_of, default=None)


def _step_of(state: Path) -> int:
    found = re.fullmatch(r"checkpoint-(\d+)", state.name)
    return int(found[1]) if found else -1


def _steps(run: TrainingRun) -> int:
    batches = -(-len(run.prompts) // run.batch_size)
    return run.epochs * -(-batches // run.accumulation)


def _optimizer_bytes(trainer: Trainer) -> int:
    """Bytes of the optimiser's state; that it is the trained weights' alone is made sure of."""
    optimizer: Any = trainer.optimizer
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    wanted = {id(p) for p in trainer.model.parameters() if p.requires_grad}  # type: ignore[union-attr]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held != wanted or not {id(p) for p in optimizer.state} <= wanted:
        raise RuntimeError("the optimiser holds other weights than those that are trained")
    tensors = [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor.ndim)


def _silence(trainer: Trainer) -> None:
    """Takes away what prints."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for kind in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)


class _Questions(torch.utils.data.Dataset):
    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self.prompts = prompts

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int) -> Prompt:
        return self.prompts[index]


@dataclass(frozen=True)
class _Collate:
    """Prompts, padded on the left, so that the answer follows the last position of each."""

    pad: int

    def __call__(self, prompts: list[Prompt]) -> dict[str, Any]:
        width = max(len(prompt.tokens) for prompt in prompts)
        tokens = torch.full((len(prompts), width), self.pad)  # [batch, pos]
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, width - len(prompt.tokens) :] = torch.tensor(prompt.tokens)
            mask[row, width - len(prompt.tokens) :] = 1
        return {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
            "logits_to_keep": 1,
            "use_cache": False,
            # Trainer counts what is no -100, with or without the first column.
            "labels": torch.tensor([[IGNORED, prompt.answer_token] for prompt in prompts]),
        }


class _Trainer(Trainer):
    """Keeps the trained weights alone, where `Trainer` would write the whole model."""

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        from safetensors.torch import save_file

        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            folder.mkdir(parents=True, exist_ok=True)
            model: Any = self.model
            save_file(
                {name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad},
                folder / TRAINED,
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from safetensors.torch import load_file

        stored = load_file(Path(resume_from_checkpoint) / TRAINED)
        with torch.no_grad():
            trained: Any = model or self.model
            for name, parameter in trained.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(stored.pop(name))
        if stored:
            raise RuntimeError(
                f"{resume_from_checkpoint} holds weights that are not trained here: {next(iter(stored))}"
            )


class _Keeper(TrainerCallback):
    """Marks saved states as complete, and stops at a gradient that is no number, before the weights become so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            raise Diverged("gradient")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if args.should_save:
            io.write(self.folder / f"checkpoint-{state.global_step}" / COMPLETE, b"")

    def drop_from(self, step: int) -> Path | None:
        """Removes states whose weights gave what is no number; the last one before."""
        for state in self.folder.glob("checkpoint-*"):
            if _step_of(state) >= step > 0:
                shutil.rmtree(state)
        return last_complete(self.folder)


class _Progress(TrainerCallback):
    """A bar of steps with the loss."""

    bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="train",
            unit="step",
            delay=0.5,
            dynamic_ncols=True,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()
