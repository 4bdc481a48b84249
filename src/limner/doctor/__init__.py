"""The doctor: what is wrong with a training, since when, and what helps.

`watch` measures a model while it trains (`signals` against a `ground` of real images) and writes ``checks.jsonl``;
`checks` are pure functions of what a run has written (`history`) and give a `finding` each; `diagnosis` reads a run and
says all of them.
"""
