"""Fine-tuning: which modules hold culture neurons (`modules`), training only some of them (`finetune`, `training`), and what that
costs in culture (`measuring`, `forgetting`)."""
