"""`culnig-tl parts`: what each part of the method is good for."""

from __future__ import annotations

from ..study.opened import OutputDir, StudyDir, open_study, write_all
from .options import BatchSize, DataDir, Device, Dtype, batch_size_of, show_frame


def parts(
    study: StudyDir,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """A study's selection with one part switched off at a time: control, CountryRC, MLP or attention, max over tokens."""
    from ..analyses.parts import switch_off_parts

    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    config = opened.study.config
    found = switch_off_parts(
        opened.model,
        opened.culture,
        opened.reading,
        opened.tasks,
        top_mlp=config.top_mlp,
        top_attn=config.top_attn,
        drop_reading=config.drop_reading,
        batch_size=batch_size_of(batch_size),
    )
    table = found.table().reset_index()
    show_frame(table[[column for column in table.columns if not column.endswith((" se", " accuracy"))]])
    write_all(output_dir or study, {"parts.csv": table.to_csv(index=False)})
