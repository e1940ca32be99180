"""Protect: a weight becomes side information and levels, and a call that reconstructs it.

    W  =  Decode(W.level, W.sign, W.class, W.alpha, W.beta, W.shape)

Sign and class are kept apart from the level, each class is scaled to the channel's output range, and large weights may
get more cells than small ones (Isik et al. 2020, section 2). With levels that are read as they were written, the model
computes what it computed before: a tensor whose decode would be off by more than `onnx_analog.coding.fidelity` allows
stays digital, with a warning. Only classes without cells lose something, as digital quantisation does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from onnx_analog.arguments import check_type
from onnx_analog.coding.assumptions import OPTIMISTIC, assumptions
from onnx_analog.coding.codebook import Codebook, clipped_of
from onnx_analog.coding.compensation import InputMoments, compensated, unfit
from onnx_analog.coding.fidelity import Deviation, excess
from onnx_analog.coding.packing import index_width, pack, pack_index
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.planes import (
    Axis,
    Encoded,
    Fitted,
    Part,
    Planes,
    decode,
    fit,
    planes_of,
    split,
    stored_counts,
)
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.verified import Verified
from onnx_analog.display import counted
from onnx_analog.errors import ModelError, NothingToStore
from onnx_analog.graph.build import Builder, Stored, Tensors, prepare, reason_against
from onnx_analog.graph.files import name_of
from onnx_analog.graph.kept import forget_training, trained_names
from onnx_analog.graph.layout import Layout, stages
from onnx_analog.graph.stored import COMPENSATED_KEY, note_verified
from onnx_analog.graph.uses import output_axis
from onnx_analog.graph.weights import UNFIT, Selected, Selection, Weight, all_tensors, attributes_left, find

__all__ = ["ProtectPass"]

logger = logging.getLogger(__name__)

_NOT_COMPENSATED = "weights are stored without compensation, and the plan is for compensated ones"
AT_ONCE = 128 * 2**20  # bytes; larger models are encoded again when they are written, for they may not fit in memory


@dataclass(frozen=True, kw_only=True)
class ProtectPass(ir.passes.InPlacePass):
    """Replace every selected weight by its planes.

    Parameters
    ----------
    plan : Plan or Scheme
        How each tensor is stored; a scheme stores all tensors alike.
    selection : Selection
        Which tensors.
    moments : mapping of str to InputMoments
        Of what weights are multiplied by, by storage key: `onnx_analog.run.moments` finds them. Weights in equal steps
        without analog cells are then rounded so that they make up for each other's errors; see
        `onnx_analog.coding.compensation`.

    Raises
    ------
    OptionError
        If `plan` is something else.
    ModelError
        If the model is protected already, older than opset 11, or has operators of the decode's domain.
    NothingToStore
        If no tensor is selected, or none of those can be stored.
    """

    plan: Plan = field(default_factory=Plan)
    selection: Selection = field(default_factory=Selection)
    moments: Mapping[str, InputMoments] = field(default_factory=dict, hash=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", Plan.of(self.plan))
        check_type("selection", self.selection, Selection, "a Selection")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Protect `model` in place; nothing is changed unless all can be."""
        coded = self.stored(model)
        if assumptions(stored.scheme for _, stored in coded):
            logger.warning(OPTIMISTIC)
        _tell_stored(coded)
        put(model, coded)
        plan = self.plan if self.moments or not self.plan.compensated else self.plan.marked(_NOT_COMPENSATED)
        note_verified(model, carried(plan, coded))
        return ir.passes.PassResult(model, modified=True)

    def stored(self, model: ir.Model) -> list[tuple[Weight, Stored]]:
        """Return the weights of `model`, which is not changed, that can be stored, and how they are."""
        against = reason_against(model)
        if against is not None:
            raise ModelError(against)
        selected = find(model, self.selection)
        for weight, reason in selected.skipped:
            if reason in UNFIT:  # it was asked for
                logger.warning("%s stays digital: %s", weight.key, reason)
        unused = self.plan.unused(weight.key for weight in selected.weights)
        if unused:
            self.plan.check_keys((weight.key for weight in all_tensors(model)), name_of(model))
        for name in unused:
            if name in self.plan.patterns:
                logger.warning("the plan's pattern %s matches no selected tensor", name)
            else:
                logger.warning("the plan names %s, which is not among the tensors that are stored", name)
        coded = self._encoded(selected.weights)
        if not coded:
            raise NothingToStore(_nothing(selected, model, self.plan))
        return coded

    def unfit(self, weights: Sequence[Weight]) -> dict[str, str]:
        """Return why some of the selected `weights`, by key, would stay digital, as their magnitudes are."""
        settled = [_Group(group, scheme).settled() for scheme, group in self._groups(weights)]
        return {weight.key: reason for group in settled for weight, reason in group.unfit}

    def _groups(self, weights: Sequence[Weight]) -> list[tuple[Scheme, list[Weight]]]:
        """Return the weights that share a codebook, and their scheme."""
        together: dict[Any, tuple[Scheme, list[Weight]]] = {}
        for weight in weights:
            scheme = self.plan.scheme_of(weight.key)
            if scheme is not None:
                name = scheme if scheme.granularity == "model" else weight.key
                together.setdefault(name, (scheme, []))[1].append(weight)
        return list(together.values())

    def _encoded(self, weights: Sequence[Weight]) -> list[tuple[Weight, Stored]]:
        """Return the weights that can be stored, in their order, and how they are."""
        later = _Recent() if sum(weight.tensor.nbytes for weight in weights) > AT_ONCE else None
        order = {id(weight): number for number, weight in enumerate(weights)}
        coded = [pair for scheme, group in self._groups(weights) for pair in self._group(group, scheme, later)]
        coded.sort(key=lambda pair: order[id(pair[0])])
        return _staged(coded)

    def _group(self, group: list[Weight], scheme: Scheme, later: _Recent | None) -> Iterator[tuple[Weight, Stored]]:
        known = self.moments if unfit(scheme) is None else {}
        return _Group(group, scheme, later, known).encoded(verified=self.plan.is_as_verified)


def _staged(coded: list[tuple[Weight, Stored]]) -> list[tuple[Weight, Stored]]:
    """Return the weights with the stage in which each is decoded; in bodies and functions, stages are not known."""
    main = [weight for weight, _ in coded if not weight.scope]
    stage_of = dict(zip(map(id, main), stages([weight.size for weight in main]), strict=True))
    staged = []
    for weight, stored in coded:
        stage, split = stage_of.get(id(weight), (0, False))
        staged.append((weight, stored._replace(layout=replace(stored.layout, stage=stage, split=split))))
    return staged


def _tell_stored(coded: Sequence[tuple[Weight, Stored]]) -> None:
    """Log how many tensors and weights each scheme stores."""
    sizes: dict[Scheme, list[int]] = {}
    for weight, stored in coded:
        sizes.setdefault(stored.scheme, []).append(weight.size)
    for scheme, of_scheme in sizes.items():
        logger.info("%s, %s: %s", counted(len(of_scheme), "tensor"), counted(sum(of_scheme), "weight"), scheme)


def put(model: ir.Model, coded: Sequence[tuple[Weight, Stored]]) -> None:
    """Store weights of `model`, in place, as `ProtectPass.stored` returns them, and forget how a plan was verified."""
    replace_all(model, coded)
    compensated = sum(stored.compensated for _, stored in coded)
    note_verified(model, None)
    model.metadata_props.pop(COMPENSATED_KEY, None)  # an earlier run may have left it
    if compensated:
        model.metadata_props[COMPENSATED_KEY] = counted(compensated, "tensor")


def carried(plan: Plan, coded: Sequence[tuple[Weight, Stored]]) -> Verified | None:
    """Return how a plan was verified, marked if weights are stored otherwise, or some stay digital that should not."""
    stored = Plan(default=None, tensors={weight.key: stored.scheme for weight, stored in coded})
    verified = plan.verified
    same = verified is not None and verified.plan_sha256 == stored.stored_sha256()
    return (plan if same else plan.marked("tensors are stored otherwise than in the plan that was verified")).verified


def replace_all(model: ir.Model, coded: Sequence[tuple[Weight, Stored]]) -> None:
    """Put the planes, and the calls that decode them, in the place of weights of `model`, in place."""
    _forget_training(model, [weight for weight, _ in coded])
    prepare(model)
    builder = Builder(model)
    for weight, stored in coded:
        builder.replace(weight, stored)
    builder.finish()


def _forget_training(model: ir.Model, weights: Sequence[Weight]) -> None:
    """Drop what says how to train the model if it is about weights that are initializers no more."""
    names = trained_names(model).intersection(weight.name for weight in weights if weight.graph is model.graph)
    if names:
        logger.warning("the model's training information is dropped: it refers to %s, which is stored", min(names))
        forget_training(model)


def _nothing(selected: Selected, model: ir.Model, plan: Plan) -> str:
    """Say that nothing is stored, and why not the largest tensor."""
    name = name_of(model)
    if selected.weights and not any(plan.scheme_of(weight.key) for weight in selected.weights):
        return f"the plan leaves all tensors of {name} digital, so there is nothing to store"
    if selected.weights:
        return f"no tensor of {name} can be stored, so there is nothing to store"
    message = f"no tensor of {name} is selected, so there is nothing to store"
    if not selected.skipped:
        return f"{message}: it has none. {attributes_left(model)}."
    largest, reason = max(selected.skipped, key=lambda skipped: skipped[0].size)
    return f"{message}. The largest, {largest.key!r}, stays digital: {reason}."


# -------------------------------------------------------------------------------------- weights that share a codebook


class _Settled(NamedTuple):
    """The weights of a group that are stored, what they share, and why the others are not."""

    weights: list[Weight]
    fitted: Fitted | None  # None if none is stored
    unfit: list[tuple[Weight, str]]


class _Group:
    """The weights that share a codebook: one tensor, or all of a model.

    What is stored of each is computed once; with `later`, each time it is needed, as large models require.
    """

    def __init__(
        self,
        weights: list[Weight],
        scheme: Scheme,
        later: _Recent | None = None,
        moments: Mapping[str, InputMoments] | None = None,
    ) -> None:
        self._weights, self._scheme, self._later, self._moments = weights, scheme, later, moments or {}
        self._kept: dict[int, Part] = {}
        self._computed: dict[int, tuple[Fitted, Planes]] = {}

    def part(self, weight: Weight) -> Part:
        """Return what of one weight is stored."""
        if self._later is not None:
            return split(weight.array(), self._scheme, self._axis(weight), key=weight.key)
        if id(weight) not in self._kept:
            self._kept[id(weight)] = split(weight.array(), self._scheme, self._axis(weight), key=weight.key)
        return self._kept[id(weight)]

    def planes(self, weight: Weight, fitted: Fitted, number: int) -> Planes:
        """Return one weight, tensor `number` of those that `fitted` is of, as it is stored."""
        before, planes = self._computed.get(id(weight), (None, None))
        if planes is None or before is not fitted:
            planes = planes_of(self.part(weight), fitted, number, self._scheme)
            if self._later is None:
                self._computed[id(weight)] = fitted, planes
        return planes

    def _axis(self, weight: Weight) -> Axis | None:
        return axis_of(weight, self._scheme)

    def encoded(self, *, verified: bool = False) -> Iterator[tuple[Weight, Stored]]:
        """Yield each weight that can be stored, and how it is; of verified steps, nobody is told to change them."""
        weights, fitted, unfit = self.settled()
        for weight, reason in unfit:
            logger.warning("%s stays digital: %s", weight.key, reason)
        if fitted is None:
            return
        self._warn_of_empty_classes(weights[0].key, fitted)
        if not verified:
            self._warn_of_clipping(weights, fitted)
        for number, weight in enumerate(weights):
            layout = _layout(weight, fitted, number, self._scheme)
            if self._later is not None:
                planes = _Later(weight, fitted, number, self._scheme, self._later).planes(layout)
            else:
                planes = packed(self.planes(weight, fitted, number), layout)
            made_up = number in fitted.compensated
            yield weight, Stored(self._scheme, layout, self._axis(weight), fitted.codebook, planes, made_up)

    def _warn_of_empty_classes(self, key: str, fitted: Fitted) -> None:
        if self._scheme.partition not in ("share", "bounds"):
            return
        where = self._where(key)
        for number in np.flatnonzero(fitted.counts.sum(axis=0) == 0):
            name = ("small", "large")[number] if self._scheme.classes == 2 else f"of class {number + 1}"
            logger.warning("%s: no weight is %s, so that class is empty", where, name)

    def _warn_of_clipping(self, weights: list[Weight], fitted: Fitted) -> None:
        """Log a warning if weights are clipped to the last step, as it has no cells, and wider steps would do better.

        With few classes, it is often best to clip a few weights: wider steps would be worse for all others.
        """
        clipped = clipped_of(fitted.codebook, fitted.edges[0], self._scheme)
        if clipped is None or not _is_heard():
            return
        name = "step" if self._scheme.relative_step is None else "relative_step"
        given = getattr(self._scheme, name)
        wider = [given * factor for factor in _doublings(clipped.largest / clipped.reach)]
        harm = {step: self._with(**{name: step}).harm_of(weights) for step in wider}
        step = min(harm, key=harm.__getitem__)
        if self._harm(weights, fitted) <= harm[step]:
            return
        logger.warning(
            "%s: the steps reach %.3g, and weights of up to %.3g in magnitude are clipped to that. Give a %s of "
            "%.3g or more, or none",
            self._where(weights[0].key),
            clipped.reach,
            clipped.largest,
            name,
            step,
        )

    def _with(self, **changes: Any) -> _Group:
        """Return the same weights, with some settings of the scheme changed."""
        return _Group(self._weights, self._scheme.changed(**changes), self._later, self._moments)

    def harm_of(self, weights: list[Weight]) -> float:
        """Return the harm of storing some of the weights; infinite if they cannot be stored."""
        fitted, _ = self._tried(weights)
        return math.inf if fitted is None else self._harm(weights, fitted)

    def _harm(self, weights: list[Weight], fitted: Fitted) -> float:
        """Return the harm of storing weights: the sum of their squared errors.

        If all of them make up for each other's errors, it is that of the outputs' squared errors.
        """
        together = all(weight.key in self._moments for weight in weights)
        total = 0.0
        for number, weight in enumerate(weights):
            stored = Encoded(self.planes(weight, fitted, number), fitted.codebook, self._scheme)
            error = decode(stored).reshape(weight.shape) - weight.array()
            if together:
                total += self._moments[weight.key].error(error)
            else:
                total += float(np.square(error, dtype=np.float64).sum())
        return total

    def _where(self, key: str) -> str:
        return "the model" if self._scheme.granularity == "model" else key

    def settled(self) -> _Settled:
        """Return the weights that can share a codebook, that codebook, and why the others stay digital.

        Where they cannot share them all, those leave first that have no place in a codebook of their own either; then
        those whose largest magnitude is the furthest, as a factor, from the middle one: as few as will do.
        """
        group = self._weights
        fitted, reason = self._tried(group)
        if reason is None:
            return _Settled(group, fitted, [])
        if len(group) == 1:
            return _Settled([], None, [(group[0], reason)])
        alone = {id(weight): self._tried([weight])[1] for weight in group}
        unfit = [(weight, why) for weight in group if (why := alone[id(weight)]) is not None]
        left = [weight for weight in group if alone[id(weight)] is None]
        fitted, reason = self._tried(left) if left else (None, None)
        if reason is None:
            return _Settled(left, fitted, unfit)
        left, gone = self._parted(left)
        unfit += [(weight, f"{reason}; this tensor is furthest from the others") for weight in gone]
        return _Settled(left, self._tried(left)[0], unfit)

    def _parted(self, group: list[Weight]) -> tuple[list[Weight], list[Weight]]:
        """Return those that can share a codebook, and the others: as few as will do, by halving, the furthest first."""
        far = _furthest_first(group)

        def without(count: int) -> list[Weight]:
            gone = {id(weight) for weight in far[:count]}
            return [weight for weight in group if id(weight) not in gone]

        few, enough = 0, len(group) - 1  # one that has a place alone has one
        while enough - few > 1:
            middle = (few + enough) // 2
            few, enough = (few, middle) if self._tried(without(middle))[1] is None else (middle, enough)
        return without(enough), far[:enough]

    def _tried(self, group: Sequence[Weight]) -> tuple[Fitted | None, str | None]:
        """Return the codebook that the weights of `group` share, and why they cannot, or None."""
        axis = self._axis(group[0])
        try:
            groups = 1 if axis is None else axis.count
            keep = self._later is None or bool(self._moments)
            fitted = fit(_Parts(group, self.part), self._scheme, groups=groups, keep=keep)
            fitted = self._compensated(group, fitted)
        except ModelError as error:
            return None, str(error)
        for number, weight in enumerate(group):
            planes = partial(self.planes, weight, fitted, number)
            deviation = excess(weight.array(), planes, fitted, number, self._scheme)
            if deviation is not None:
                return None, _too_far_apart(fitted.codebook, weight if len(group) > 1 else None, deviation)
        return fitted, None

    def _compensated(self, group: Sequence[Weight], fitted: Fitted) -> Fitted:
        """Return what was fitted, with the classes of weights that make up for each other's errors."""
        for number, weight in enumerate(group):
            moments, axis = self._moments.get(weight.key), self._axis(weight)
            if moments is not None:
                groups = None if axis is None else axis.groups(weight.size, None)
                fitted, _ = compensated(weight.array(), self.part(weight), fitted, number, moments, groups)
        return fitted


def _is_heard() -> bool:
    """Return whether warnings are not filtered out, as where many plans are tried: computing them takes time."""
    record = logger.makeRecord(logger.name, logging.WARNING, __file__, 0, "", (), None)
    return logger.isEnabledFor(logging.WARNING) and bool(logger.filter(record))


def _doublings(most: float) -> list[float]:
    """Return 2, 4, 8, ... below `most`, which is above 1, and `most` itself."""
    return [*(2.0**power for power in range(1, math.ceil(math.log2(most)))), most]


class _Parts:
    """What is stored of each of several weights; they can be iterated as often as is needed."""

    def __init__(self, group: Sequence[Weight], part: Callable[[Weight], Part]) -> None:
        self._group, self._part = group, part

    def __iter__(self) -> Iterator[Part]:
        return map(self._part, self._group)


def axis_of(weight: Weight, scheme: Scheme) -> Axis | None:
    """Return the output channels of a weight, where each has α and β of its own."""
    if scheme.granularity != "channel":
        return None
    axis = Axis.of(weight.shape, output_axis(weight.value, weight.shape))
    return axis if axis.count > 1 else None


def _too_far_apart(codebook: Codebook, whose: Weight | None, deviation: Deviation) -> str:
    high = max(np.abs(codebook.low).max(), np.abs(codebook.high).max())
    if whose is None:
        return f"its weights, up to {high:.3g}, lie too far apart: small ones decode {deviation}"
    return f"one scale for all tensors, up to {high:.3g}, makes small weights of {whose.key} decode {deviation}"


def _furthest_first(weights: Sequence[Weight]) -> list[Weight]:
    sizes = [float(np.log2(np.abs(weight.array().astype(np.float64)).max())) for weight in weights]
    middle = float(np.median(sizes))
    order = sorted(range(len(weights)), key=lambda number: (-abs(sizes[number] - middle), -sizes[number]))
    return [weights[number] for number in order]


# ----------------------------------------------------------------------------------------------- the planes


def _layout(weight: Weight, fitted: Fitted, number: int, scheme: Scheme) -> Layout:
    stored = int(stored_counts(fitted, number, scheme).sum())
    return Layout(
        masked=stored < weight.size,
        sign=scheme.sign == "bit",
        width=index_width(scheme.classes),
        analog=scheme.analog,
        grouped=fitted.codebook.groups > 1,
        aligned=stored % 8 == 0,
    )


def packed(planes: Planes, layout: Layout) -> Tensors:
    """Return planes as they stand in a model: bits and class indices in bytes."""
    bits = {"mask": planes.mask, "sign": planes.sign}
    tensors: Tensors = {name: ir.Tensor(pack(plane)) for name, plane in bits.items() if plane is not None}
    if planes.class_index is not None:
        tensors["class"] = ir.Tensor(pack_index(planes.class_index, layout.width))
    if layout.analog != "none":
        tensors["level"] = ir.Tensor(planes.level)
    return tensors


@dataclass
class _Recent:
    """The planes that were computed last: those of one tensor are asked for in a row."""

    owner: object = None
    planes: Tensors = field(default_factory=dict)


class _Later:
    """Planes that are computed when they are asked for: memory then holds those of one tensor at a time."""

    def __init__(self, weight: Weight, fitted: Fitted, number: int, scheme: Scheme, recent: _Recent) -> None:
        self._tensor, self._fitted, self._number, self._scheme = weight.tensor, fitted, number, scheme
        self._axis, self._size, self._recent = axis_of(weight, scheme), weight.size, recent

    def planes(self, layout: Layout) -> Tensors:
        """Return the planes, each computed when it is asked for."""
        counts = stored_counts(self._fitted, self._number, self._scheme)
        stored = int(counts.sum())
        bits = {"mask": self._size * layout.masked, "sign": stored * layout.sign, "class": stored * layout.width}
        tensors: Tensors = {
            name: ir.LazyTensor(self._plane(name, layout), ir.DataType.UINT8, ir.Shape([-(-count // 8)]))
            for name, count in bits.items()
            if count
        }
        if layout.analog != "none":
            levels = int(counts[np.array(self._scheme.cells_of_class) > 0].sum())
            tensors["level"] = ir.LazyTensor(self._plane("level", layout), ir.DataType.FLOAT, ir.Shape([levels]))
        return tensors

    def _plane(self, name: str, layout: Layout) -> Callable[[], Any]:
        return lambda: self._computed(layout)[name]

    def _computed(self, layout: Layout) -> Tensors:
        recent = self._recent
        if recent.owner is not self:
            recent.owner, recent.planes = None, {}  # before the next ones take their place in memory
            part = split(self._tensor.numpy(), self._scheme, self._axis)
            recent.planes = packed(planes_of(part, self._fitted, self._number, self._scheme), layout)
            recent.owner = self
        return recent.planes
