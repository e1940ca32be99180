"""A plan that the user gives: its schemes are candidates, and it is tried as a whole.

A network that was trained with a plan in the loop loses little in exactly the steps of that plan, each weight rounded
alone. Errors of weights do not show that: only what the plan loses as a whole does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from onnx_analog.channels import Channel
from onnx_analog.coding.numbers import codes_for
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import DECODING
from onnx_analog.errors import OptionError
from onnx_analog.tuning.allocation import Allocation, Choice, summed
from onnx_analog.tuning.candidates import Candidate, takes
from onnx_analog.tuning.sensitivity import Sensitivity

Considered = Mapping[str, tuple[Scheme, ...]]


def considered(plan: Plan | None, keys: Iterable[str], channel: Channel, decoding: str) -> Considered:
    """Return the schemes of each tensor under a plan, by storage key; no tensor has any without a plan.

    They are in the channel, and with the code, of the search. The first ones of all tensors make a plan whose weights
    are rounded alone, the second ones a plan whose weights are rounded together, and the third ones that which is
    given. If nothing of it is entropy-coded, the same three follow without a code.

    Raises
    ------
    OptionError
        If the plan leaves a tensor digital, or cannot be what the search tries.
    """
    keys = list(keys)
    if plan is None:
        return dict.fromkeys(keys, ())
    plan.check_keys(keys, "the selection of tensors")
    unused = plan.unused(keys)
    if unused:
        raise OptionError(f"the plan's pattern {unused[0]!r} matches no selected tensor of the model")
    schemes = {key: _checked(key, plan.scheme_of(key), decoding).changed(channel=channel) for key in keys}
    codes = codes_for(channel, decoding)
    if any(each.entropy != "none" for each in schemes.values()):
        codes = codes[:1]
    return {
        key: tuple(coded for code in codes for coded in _rounded(each.changed(code=code)))
        for key, each in schemes.items()
    }


def _rounded(scheme: Scheme) -> tuple[Scheme, ...]:
    return (*(scheme.changed(rounding=name) for name in ("alone", "together")), scheme)


def _checked(key: str, scheme: Scheme | None, decoding: str) -> Scheme:
    """Return a scheme of the plan if the search can store a tensor so."""
    if scheme is None:
        raise OptionError(f"the plan leaves {key!r} digital, and tune stores it: exclude it, or give it a scheme")
    if scheme.granularity != "tensor":
        raise OptionError(
            f"the plan has granularity {scheme.granularity!r} for {key!r}, and tune has a codebook for each tensor"
        )
    if scheme.side_channel is not None:
        raise OptionError(f"the plan has a side_channel for {key!r}, and tune stores side information without errors")
    if DECODING.index(takes(scheme)) > DECODING.index(decoding):
        raise OptionError(f"the plan's decoding takes {takes(scheme)!r} for {key!r}, and decoding is {decoding!r}")
    return scheme


def wholes(
    schemes: Considered, listed: Mapping[str, list[Candidate]], sensitivity: Mapping[str, Sensitivity]
) -> list[Allocation]:
    """Return the plans that are tried as a whole, the cheapest first; none if one of their tensors cannot be stored so.

    Parameters
    ----------
    schemes : mapping of str to tuple of Scheme
        What `considered` returns.
    listed : mapping of str to list of Candidate
        All candidates of each tensor.
    sensitivity : mapping of str to Sensitivity
    """
    plans = dict.fromkeys(zip(*schemes.values(), strict=True))
    of_scheme = {key: {each.scheme: each for each in of_tensor} for key, of_tensor in listed.items()}
    found = []
    for plan in plans:
        chosen = {key: of_scheme[key].get(scheme) for key, scheme in zip(schemes, plan, strict=True)}
        choices = {
            key: Choice(each, sensitivity[key].mean * each.error) for key, each in chosen.items() if each is not None
        }
        if len(choices) == len(schemes):
            found.append(summed(choices))
    return sorted(found, key=lambda each: each.cells)
