"""Inverses of triangular matrices by products, which accelerators have."""

import torch


def unit_inverse(beside: torch.Tensor) -> torch.Tensor:
    """The inverse of a triangular matrix with ones on its diagonal, of what it has beside them: [..., n, n].

    On the diagonal of `beside` nothing is read, and on one side of it are zeros. In log2(n) steps: two inverted blocks
    on the diagonal with what lies beside them, C, make one of twice the size, -block C block beside them. No powers of
    the matrix occur, which may overflow.
    Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, section 14.2.
    """
    at = torch.arange(beside.shape[-1], device=beside.device)
    inverse, size = torch.eye(beside.shape[-1], dtype=beside.dtype, device=beside.device), 1
    while size < beside.shape[-1]:
        joined, apart = (torch.div(at, blocks, rounding_mode="floor") for blocks in (2 * size, size))
        masked = beside * ((joined[:, None] == joined) & (apart[:, None] != apart)).to(beside.dtype)
        inverse = inverse - (masked if size == 1 else inverse @ masked @ inverse)
        size *= 2
    return inverse
