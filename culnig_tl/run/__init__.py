"""Running a study: its pieces in order, its folder, what survives a killed process, and many processes on one study.

`pipeline.run_study` runs one; `plan` hands its pieces to a cluster; `forecast` and `memory` say beforehand what it takes;
`saving`, `folder`, `lock` and `identity` see that nothing is lost, mixed up or done twice; `distributed` shares the questions.
"""
