"""State dicts under official names, in both directions.

An architecture states how its keys translate (``official_key`` in its file under ``mixlab/architectures``); shapes
follow from the entry: our pointwise layers hold a matrix where official 1x1 convolutions hold ``(out, in, 1, 1)``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mixlab.architectures.poolformer import official_key, official_shape
from mixlab.errors import Quoted, expected
from mixlab.metaformer import MetaFormer


def to_official(model: MetaFormer) -> dict[str, Tensor]:
    """The model's state dict under PoolFormer's official names and shapes (copies)."""
    state = model.state_dict()
    return {official_key(k): v.reshape(official_shape(k, v.shape)).clone() for k, v in state.items()}


def load_official(model: MetaFormer, state: Mapping[str, Tensor]) -> None:
    """Load a state dict with official names; every key must be accounted for.

    Raises:
        UserError: keys are missing or left over (both lists are named), or a shape differs.
    """
    own = model.state_dict()
    wanted = {official_key(k): k for k in own}
    missing, extra = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    if missing or extra:
        got = Quoted(f"missing {missing or 'none'}, left over {extra or 'none'}")
        raise expected("load_official", f"the {len(wanted)} official keys of this model", got)
    for official, key in wanted.items():
        want = official_shape(key, own[key].shape)
        if tuple(state[official].shape) != want:
            got = Quoted(str(tuple(state[official].shape)))
            raise expected(f"load_official {official}", f"shape {want}", got)
    model.load_state_dict({key: state[official].reshape(own[key].shape) for official, key in wanted.items()})
