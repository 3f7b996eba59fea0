"""Bundles of compiled ops: what goes in, the receiver's verify.py, and the launcher of GPU binaries.

`bundle` writes one, `receive` runs its own verify.py, `clean_venv` makes a place without tilewright.
"""
