"""Running a study: its pieces in order, from its folder or anew.

`pipeline.run_study` runs one, `repeat` repeats one from its record, `several` runs what is to be compared;
`plan` turns the pieces into commands for a cluster; `forecast` says beforehand what a study takes.
"""
