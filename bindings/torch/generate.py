from __future__ import annotations
def source(ops, namespace, module):
    return ""
