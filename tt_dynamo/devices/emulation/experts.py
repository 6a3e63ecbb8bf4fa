"""Values of the collectives that bring tokens to the chips of their experts, and back.

They take and give what those of `collectives.py` do. The mapping [1, 1, experts, chips] has a one where an expert's
chip is; a chip has its experts in the order of their numbers. TTNN's documentation writes tokens as
[batch, seq, 1, hidden], its operation takes [batch, 1, seq, hidden]. Rows that TTNN leaves as they were hold
`UNDEFINED_PADDING`.
"""

import torch

from tt_dynamo.devices.errors import EmulationError

from .collectives import COLLECTIVES, Mesh, Parts
from .writes import UNDEFINED_PADDING


def all_to_all_dispatch(
    mesh: Mesh,
    input_tensor: Parts,
    expert_indices_tensor: Parts,
    expert_mapping_tensor: Parts,
    *,
    cluster_axis: int | None = None,
    output_concat_dim: int = 1,
) -> tuple[Parts, Parts]:
    """Tokens [batch, 1, seq, hidden] of the chips of a line, on each of them, and which experts they chose.

    Of the tokens [1, batch, seq, hidden] a chip gets those that chose one of its experts; of the choices
    [1, batch, seq, k] every chip gets all.
    """
    owner = _owners(expert_mapping_tensor)
    tokens, choices = list(input_tensor), list(expert_indices_tensor)
    for line in mesh.lines(cluster_axis):
        rows = torch.cat([input_tensor[chip].movedim(1, 0) for chip in line], output_concat_dim)
        chosen = torch.cat([expert_indices_tensor[chip].movedim(1, 0) for chip in line], output_concat_dim)
        for chip in line:
            goes = (owner[chosen] == chip).any(-1, keepdim=True)
            tokens[chip], choices[chip] = rows.masked_fill(~goes, UNDEFINED_PADDING), chosen
    return tokens, choices


def all_to_all_combine(
    mesh: Mesh,
    input_tensor: Parts,
    expert_metadata_tensor: Parts,
    expert_mapping_tensor: Parts,
    *,
    local_reduce: bool = False,
    cluster_axis: int | None = None,
    output_shard_dim: int = 1,
) -> Parts:
    """What experts [experts of a chip, batch, seq, hidden] made of tokens, for the chips whose tokens they are.

    A chip gets [k, batch of the chip, seq, hidden]: of each of its tokens what each of its choices made.
    """
    if local_reduce:
        raise NotImplementedError("ttnn.all_to_all_combine with local_reduce=True has no values here")
    owner = _owners(expert_mapping_tensor)
    place = torch.tensor([int((owner[:expert] == owner[expert]).sum()) for expert in range(len(owner))])
    found = list(input_tensor)
    for line in mesh.lines(cluster_axis):
        for at, chip in enumerate(line):
            chosen = expert_metadata_tensor[chip][0].chunk(len(line), output_shard_dim - 1)[at]
            first = [0, 0]
            first[output_shard_dim - 1] = at * chosen.shape[output_shard_dim - 1]
            hidden = input_tensor[chip].shape[-1]
            made = torch.full((chosen.shape[-1], *chosen.shape[:-1], hidden), UNDEFINED_PADDING)
            for other in line:
                b, s, k = (owner[chosen] == other).nonzero(as_tuple=True)
                made[k, b, s] = input_tensor[other][place[chosen[b, s, k]], first[0] + b, first[1] + s]
            found[chip] = made
    return found


def _owners(mapping: Parts) -> torch.Tensor:
    """The chip of each expert."""
    if any(not torch.equal(part, mapping[0]) for part in mapping[1:]):
        raise EmulationError("the mapping of experts to chips is not the same on every chip")
    return mapping[0][0, 0].argmax(-1)


COLLECTIVES |= {"ttnn.all_to_all_dispatch": all_to_all_dispatch, "ttnn.all_to_all_combine": all_to_all_combine}
