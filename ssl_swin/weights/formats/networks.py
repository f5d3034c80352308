"""Which networks a file holds, under whatever names they are wrapped, and which one is taken.

Training programs put words of their own before the names of a network, keep a slow copy of it
beside it, and wrap its modules. A network is found by a tensor that every encoder of its kind has,
and counts as one if a known format recognises what stands beside that tensor.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ssl_swin.errors import UserError
from ssl_swin.weights.formats.format import Format
from ssl_swin.weights.formats.key_maps import to_theirs
from ssl_swin.weights.formats.known_formats import NAMES, formats, recognise
from ssl_swin.weights.formats.names import enumerate_names
from ssl_swin.weights.formats.report import Entry

Sections = Mapping[str, Mapping[str, Tensor]]  # tensors by name, by the key that they lie under

# Modules that only wrap another: of torch.compile, FSDP and activation checkpointing.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# What self-supervised methods call the slow copy of a network that they train.
_SLOW_COPY = re.compile(r"(^|[._])(k|key|momentum|target)($|[._])")
_AVERAGE = "state_dict"  # of Lightning, beside the weights that training goes on with
_GOES_ON = "current_model_state"
OUTSIDE = "belongs to a larger model around the backbone"


@dataclass(frozen=True)
class Network:
    """A network that a format recognises.

    Attributes:
        name: As `--network` takes it; empty if it is the file's only content.
        format: The format of its names.
        state: Its tensors, and those of the model around it, without the words in front.
        given_as: The name in the file of each of them.
        others: Tensors of the file that are not taken, with the reason.
        is_one_of_several: Whether the file holds other networks.
    """

    name: str
    format: Format
    state: Mapping[str, Tensor]
    given_as: Mapping[str, str]
    others: tuple[Entry, ...] = ()
    is_one_of_several: bool = False


@dataclass(frozen=True)
class _Place:
    """Where a network lies: the key, and what stands before every name of the encoder."""

    section: str
    prefix: str

    @property
    def name(self) -> str:
        return ".".join(part for part in (self.section, self.prefix.rstrip(".")) if part)


def choose_network(
    sections: Sequence[tuple[str, Mapping[str, Tensor]]], wanted: str | None
) -> Network:
    """Returns the network to take from a file.

    Where a method keeps a slow copy beside the network that it trains, such as MoBY's `encoder_k`,
    the trained one is taken. Of Lightning's average and the weights beside it, the average is.

    Args:
        sections: Tensors by name, with the key that they lie under.
        wanted: Name of the network, or one of its words; None decides.

    Raises:
        UserError: If there is none, none of that name, or several of which none is the obvious one.
    """
    unwrapped = {section: _unwrapped(state) for section, state in sections}
    places = [
        _Place(section, prefix)
        for section, names in unwrapped.items()
        for prefix in _prefixes(names)
    ]
    tensors = dict(sections)
    found = {
        place: network
        for place in places
        if (network := _network(place, places, tensors[place.section], unwrapped[place.section]))
    }
    if not found:
        raise UserError(_explain_none(tensors))
    chosen = _choose(found, wanted, tensors)
    taken = found[chosen]
    others = _not_taken(chosen, found, unwrapped)
    names = {entry.name for entry in others}
    state = {name: t for name, t in taken.state.items() if taken.given_as[name] not in names}
    accounted = names | set(taken.given_as.values())
    outside = tuple(
        Entry(name, "", OUTSIDE) for name in tensors[chosen.section] if name not in accounted
    )
    several = len(found) > 1
    return replace(taken, state=state, others=(*others, *outside), is_one_of_several=several)


def _not_taken(
    chosen: _Place, found: Iterable[_Place], unwrapped: Mapping[str, Mapping[str, str]]
) -> tuple[Entry, ...]:
    """Lists the tensors of the networks that are not taken."""
    entries: dict[str, Entry] = {}
    for place in found:
        if place == chosen:
            continue
        front = f"{place.section}." if place.section != chosen.section else ""
        own = f"{chosen.prefix}" if front == "" and chosen.prefix.startswith(place.prefix) else None
        for name, file in unwrapped[place.section].items():
            if name.startswith(place.prefix) and not (own and name.startswith(own)):
                entries[f"{front}{file}"] = Entry(f"{front}{file}", "", _reason(place, chosen))
    return tuple(entries.values())


def _explain_none(tensors: Sections) -> str:
    for state in tensors.values():
        known = recognise(state)
        if known is not None:
            return f"the tensor {known.prefixes[0]}{_landmark(known)} is missing"
    names = [name for state in tensors.values() for name in state]
    return (
        f"not a Swin in any of the formats {', '.join(NAMES)}: "
        f"its tensors are {enumerate_names(names)}"
    )


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Returns the names in a section by what they are without the wrappers of modules."""
    return {_WRAPPERS.sub("", name): name for name in state}


def _prefixes(names: Iterable[str]) -> list[str]:
    """Returns what stands before the landmark of some format."""
    stems = dict.fromkeys(_landmark(known) for known in formats())
    prefixes = (
        name.removesuffix(stem)
        for name in names
        for stem in stems
        if name == stem or name.endswith(f".{stem}")
    )
    return list(dict.fromkeys(prefixes))


def _landmark(known: Format) -> str:
    (name,) = to_theirs(known.rules, {known.landmark: Tensor()}).state
    return name


def _network(
    place: _Place,
    places: Sequence[_Place],
    tensors: Mapping[str, Tensor],
    unwrapped: Mapping[str, str],
) -> Network | None:
    """Returns the network at a place if a format recognises it, with what belongs to its model.

    A format has words of its own before the encoder's names, beyond which its heads lie, so the
    longest that fit are taken for its own.
    """
    elsewhere = tuple(
        other.prefix
        for other in places
        if other.section == place.section
        and other.prefix != place.prefix
        and not place.prefix.startswith(other.prefix)
    )
    given_as = {name: file for name, file in unwrapped.items() if not name.startswith(elsewhere)}
    own_words = {words for known in formats() for words in known.prefixes}
    for words in sorted(own_words, key=len, reverse=True):
        wrapper = place.prefix.removesuffix(words)
        if f"{wrapper}{words}" != place.prefix or not (wrapper == "" or wrapper.endswith(".")):
            continue
        inside = {
            name.removeprefix(wrapper): file
            for name, file in given_as.items()
            if name.startswith(wrapper)
        }
        known = recognise({name: tensors[file] for name, file in inside.items()})
        if known and words in known.prefixes and f"{words}{_landmark(known)}" in inside:
            return Network(
                place.name,
                known,
                {name: tensors[file] for name, file in inside.items()},
                inside,
            )
    return None


def _choose(found: Mapping[_Place, Network], wanted: str | None, tensors: Sections) -> _Place:
    if wanted is not None:
        return _named(found, wanted)
    candidates = list(found)
    if len({place.section for place in candidates} & {_AVERAGE, _GOES_ON}) == 2:
        candidates = [place for place in candidates if place.section != _GOES_ON]
    trained = [place for place in candidates if not _SLOW_COPY.search(place.name)]
    if len(trained) == 1:
        return trained[0]
    if len(candidates) == 1 or _are_equal([found[place] for place in candidates]):
        return candidates[0]
    names = [place.name or "(no name)" for place in candidates]
    example = next(place.name for place in candidates if place.name)
    raise UserError(
        f"holds {len(candidates)} networks: {', '.join(names)}. Choose one: "
        f"`ssl-swin import FILE OUT --network {example}`, then backbone=OUT"
    )


def _named(found: Mapping[_Place, Network], wanted: str) -> _Place:
    exact = [place for place in found if place.name == wanted]
    of_word = [place for place in found if wanted in re.split(r"[.]", place.name)]
    matches = exact or of_word
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(place.name or "(no name)" for place in found)
    kind = "no" if not matches else f"{len(matches)}"
    plural = "s" if len(matches) > 1 else ""
    raise UserError(f"has {kind} network{plural} {wanted!r}; its networks are {names}")


def _are_equal(networks: Sequence[Network]) -> bool:
    first, *others = networks
    return all(
        other.state.keys() == first.state.keys()
        and all(other.state[name].equal(tensor) for name, tensor in first.state.items())
        for other in others
    )


def _reason(place: _Place, chosen: _Place) -> str:
    name = place.name or "without a name"
    if _SLOW_COPY.search(place.name):
        return f"the network {name} is a slow copy of {chosen.name}"
    if place.section == _GOES_ON:
        return f"the weights that training goes on with; {chosen.name} is their average"
    return f"the network {name}; --network {name} takes it" if place.name else "another network"
