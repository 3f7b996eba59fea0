"""put_rows in plain torch, the packing of its cache, and its draws."""

import torch


def put_rows(x, slots, note, cache, seen, case):
    cache, seen = cache.clone(), seen.clone()
    flat = cache.view(-1, *x.shape[1:])
    scaled = x * case.number("factor")
    for t, slot in enumerate(slots.tolist()):
        flat[slot] = scaled[t]
        seen[slot // 4] |= 1 << (slot % 4)
    found = (cache, seen)
    return (*found, scaled.sum()) if case.flags["sum"] == "yes" else found


def to_nz(cache, sizes):
    """[P,4,H,L] to [P,H,ceil(L/C0),4,C0], zero padded."""
    c0 = int(sizes["C0"])
    pages, tokens, heads, lanes = cache.shape
    groups = -(-lanes // c0)
    room = torch.zeros((pages, tokens, heads, groups * c0), dtype=cache.dtype)
    room[..., :lanes] = cache
    return room.view(pages, tokens, heads, groups, c0).permute(0, 2, 3, 1, 4).contiguous()


def draw(spec, case, generator):
    sizes, kind = case.sizes, spec.precision(case.precision).dtypes["x"].torch()
    slots = torch.randperm(4 * sizes["P"], generator=generator)[: sizes["T"]].to(torch.int32)
    shape = (sizes["P"], 4, sizes["H"], sizes["L"])
    noted = case.flags["noted"] == "yes"
    return {
        "x": torch.randn((sizes["T"], *shape[2:]), generator=generator).to(kind),
        "slots": slots,
        "note": torch.arange(sizes["W"], dtype=torch.int32) if noted else None,
        "cache": torch.randn(shape, generator=generator).to(kind),
        "seen": torch.zeros(sizes["P"], dtype=torch.int16),
    }
