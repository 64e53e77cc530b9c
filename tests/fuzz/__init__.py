"""Fuzzing of every reader of files, messages and command lines: `python -m tests.fuzz` (docs/reliability.md).

A reader answers any input with a result or with an error that is explained, in bounded time and memory. What is read
is made by code (`seeds`), changed at random (`mutation`), and what a reader answers is judged by `probe`.
"""
