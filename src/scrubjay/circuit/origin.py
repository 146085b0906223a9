"""Where a named value comes from in the torch module: the module beside it, the weights that make it, its neighbours.

All of it is read off the circuit: module paths are addresses too, and a weight's name begins with the path of its owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scrubjay.circuit.address import Address, parse
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.graph import topological
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum, Index, Map, Merge, Multiply, Narrow, Relabel, Split, Weight
from scrubjay.circuit.recognisers import Anatomy
from scrubjay.circuit.recognisers.facts import Facts, facts

OUTPUT, INPUT, PART, INSIDE = "output", "input", "part", "inside"
_WHOLE = ("attn.out", "mlp.out", "resid_post")
_ABOVE = 6


@dataclass(frozen=True)
class Origin:
    """A module, and what the value is to it: its `output`, its `input`, a `part` of its output, or something `inside`."""

    path: str
    relation: str

    def __str__(self) -> str:
        """Return the path, with the relation where the value is not the output.

        >>> print(Origin("h.3.attn", "output"), Origin("h.3.attn", "inside"))
        h.3.attn h.3.attn (inside)
        """
        return self.path if not self.path or self.relation == OUTPUT else f"{self.path} ({self.relation})"


@dataclass(frozen=True)
class Stretch:
    """The part of a stored tensor that makes a value: its name, and the places along each of its dimensions."""

    name: str
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as one would write it in torch; the bare name where it is the whole tensor.

        >>> print(Stretch("k_proj.weight", ("8:16", ":")), Stretch("ln.weight", (":",)))
        k_proj.weight[8:16, :] ln.weight
        """
        return self.name if all(place == ":" for place in self.places) else f"{self.name}[{', '.join(self.places)}]"


class Origins:
    """The origins of a circuit's named values; made once for a circuit."""

    def __init__(self, circuit: Circuit, anatomy: Anatomy) -> None:
        self.circuit = circuit
        everything = [*circuit.roots.values(), *circuit.table.values()]
        self.known: Facts = facts(tuple(topological(everything)), everything)
        self.outputs: dict[Node, list[str]] = {}
        self.sites: dict[Node, list[str]] = {}
        named = {path if path in circuit.table else f".{path}": path for path in anatomy.shape.modules}
        for name, node in circuit.table.items():
            if name in named:
                self.outputs.setdefault(node, []).append(named[name])
            elif not is_note(name):
                self.sites.setdefault(node, []).append(name)
        self.layers = [self._layer_paths(number) for number in range(len(anatomy.layers))]

    def of(self, address: Address) -> Origin:
        """Return the module that belongs to a value (an empty path where none can be told)."""
        here = f"L{address.layer}." if isinstance(address.layer, int) else ""
        site = _whole_site(address)
        node = self.circuit.table.get(here + site)
        if node is None:
            return Origin("", "")
        paths = self.layers[address.layer] if isinstance(address.layer, int) else ("", "", "")
        if site == "resid_pre" and paths[0]:
            return Origin(paths[0], INPUT)
        if exact := self._exact(node, site):
            return Origin(exact, OUTPUT if site == address.site else PART)
        below = node
        while _is_view(below):
            below = below.operands[0]
            if path := self._exact(below, site):
                return Origin(path, PART)
        return _inside(self._around(node, site, *paths))

    def _around(self, node: Node, site: str, layer: str, attention: str, mlp: str) -> str:
        """Return the module that a value which is no module's output is computed in."""
        if site in {"resid_mid", "resid_post", "mlp.in"}:
            return layer
        if site.endswith((".scale", ".normalized")):
            return self._owner_above(node)
        if node in self.circuit.roots.values():
            return self._nearest_below(node)
        if owners := [name.rpartition(".")[0] for name in self.weight_names(node)]:
            return common(owners)
        return attention if site.startswith("attn.") else mlp if site.startswith("mlp.") else ""

    def _exact(self, node: Node, site: str) -> str:
        """Return the module whose output a node is: of several, the outermost for what a block writes, else the weights' owner."""
        paths = sorted(self.outputs.get(node, []), key=lambda path: (path.count("."), path))
        if not paths or site in _WHOLE:
            return paths[0] if paths else ""
        owners = {name.rpartition(".")[0] for name in self.weight_names(node)}
        return next((path for path in paths if path in owners), paths[0])

    def _layer_paths(self, number: int) -> tuple[str, str, str]:
        """Return the paths of a layer, its attention and its MLP: what the owners of their weights have in common."""
        table, here = self.circuit.table, f"L{number}."

        def owners(*sites: str) -> list[str]:
            nodes = [table[here + site] for site in sites if here + site in table]
            return [name.rpartition(".")[0] for node in nodes for name in self.weight_names(node)]

        attention = owners("attn.q", "attn.k", "attn.v", "attn.o")
        mlp = [*owners("mlp.pre", "mlp.up"), *self._owners_reading(table.get(here + "mlp.post"))]
        norms = [
            self._owner_above(table[f"{here}{norm}.scale"]) for norm in ("ln1", "ln2") if f"{here}{norm}.scale" in table
        ]
        whole = [*attention, *mlp, *(path for path in norms if path)]
        return common(whole), common(attention), common(mlp)

    def _nearest_below(self, node: Node) -> str:
        """Return the nearest module whose output, alone, a value is computed from."""
        while len(data := self.known.data_operands(node)) == 1:
            (node,) = data
            if paths := self._exact(node, ""):
                return paths
        return ""

    def linear_reader(self, node: Node) -> Einsum | None:
        """Return the nearest linear map that reads a value, if it has one."""
        level = [node]
        for _ in range(_ABOVE):
            level = [reader for one in level for reader in self.known.readers.get(one, [])]
            for one in level:
                if isinstance(one, Einsum) and _weights_among(one.operands, self.known):
                    return one
        return None

    def _owners_reading(self, node: Node | None) -> list[str]:
        """Return the owners of the weights of the linear map that reads a value."""
        linear = None if node is None else self.linear_reader(node)
        names = [] if linear is None else _weights_among(linear.operands, self.known)
        return [name.rpartition(".")[0] for name in names]

    def _owner_above(self, node: Node) -> str:
        """Return the owner of the nearest weight that a value is multiplied by or added to."""
        level = [node]
        for _ in range(_ABOVE):
            level = [reader for one in level for reader in self.known.readers.get(one, [])]
            for reader in level:
                names = _weights_among(reader.operands, self.known)
                if names and not isinstance(reader, Einsum):
                    return common(name.rpartition(".")[0] for name in names)
        return ""

    def weight_names(self, node: Node) -> list[str]:
        """Return the names of the weights of the linear map, look-up or affine map that a value comes out of."""
        return list(dict.fromkeys(stretch.name for stretch in self.weights(node, {})))

    def weights(self, node: Node, at: Mapping[str, int]) -> list[Stretch]:
        """Return the stretches of weights that make the value at some places on its axes, down to the first linear map or look-up."""
        found: list[Stretch] = []
        state: _State = dict(at)
        start = node
        while node is start or node not in self.sites:
            data = self.known.data_operands(node)
            for operand in node.operands:
                if self.known.weight_only(operand):
                    found += _stretches(operand, state)
            if len(data) != 1 or not (_is_view(node) or isinstance(node, Add | Multiply | Map)):
                break
            state = _down(node, state)
            (node,) = data
        return found

    def below(self, node: Node) -> list[str]:
        """Return the nearest named values that a value is computed from."""
        stack, seen, found = list(node.operands), set[Node](), list[str]()
        while stack:
            here = stack.pop(0)
            if here in seen or here not in self.known.data:
                continue
            seen.add(here)
            if names := self._names(here):
                found.append(names[0])
            else:
                stack.extend(here.operands)
        return found

    def above(self, node: Node) -> list[str]:
        """Return the nearest named values that are computed from a value."""
        stack, seen, found = list(self.known.readers.get(node, [])), set[Node](), list[str]()
        while stack:
            here = stack.pop(0)
            if here in seen:
                continue
            seen.add(here)
            if names := self._names(here):
                found.append(names[0])
            else:
                stack.extend(self.known.readers.get(here, []))
        return found

    def _names(self, node: Node) -> list[str]:
        """Return a node's names: its sites, or its modules in a circuit where no layer was recognised."""
        named = sorted(self.sites.get(node, []), key=lambda name: "resid_" not in name)
        return named if self.layers else [*named, *self.outputs.get(node, [])]


def common(paths: Iterable[str]) -> str:
    """Return the longest path that all paths are in (a path is in itself).

    >>> common(["h.3.attn.c_attn", "h.3.attn.c_proj"]), common(["lm_head"])
    ('h.3.attn', 'lm_head')
    """
    split = [path.split(".") for path in paths]
    if not split:
        return ""
    shared: list[str] = []
    for names in zip(*split, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _inside(path: str) -> Origin:
    return Origin(path, INSIDE if path else "")


def _whole_site(address: Address) -> str:
    """Return the site of the layer that a head's, neuron's or expert's value is part of."""
    kind = address.kind
    if kind == "N":
        return "mlp.post"
    if kind.startswith("mlp.E"):
        return "mlp.out"
    prefix, _, site = kind.partition(".")
    if prefix not in {"H", "KV"}:
        return address.site
    return {"out": "attn._product", "q_in": "resid_pre", "k_in": "resid_pre", "v_in": "resid_pre"}.get(
        site, f"attn.{site}"
    )


def whole_of(address: Address) -> Address | None:
    """Return the value of the whole layer that a part's value is a piece of, where there is one with a name."""
    site = _whole_site(address)
    return None if is_note(site) or not site or site == address.site else parse(f"L{address.layer}.{site}")


_State = dict[str, "int | slice"]


def _down(node: Node, state: _State) -> _State:
    """Return the places on the axes of a node's operand that are read for the places on the node's own."""
    below = dict(state)
    if isinstance(node, Index):
        below[node.axis] = node.at
    elif isinstance(node, Narrow):
        size = int(node.to.size) if isinstance(node.to.size, int) else None
        place = below.pop(node.to.name, slice(0, size))
        if isinstance(place, int):
            below[node.axis] = node.start + place * node.step
        elif node.step == 1 and size is not None:
            below[node.axis] = slice(node.start + place.start, node.start + place.stop)
    elif isinstance(node, Split):
        found = _run([(axis.name, axis.size) for axis in node.into], below)
        below = {name: place for name, place in below.items() if name not in {axis.name for axis in node.into}}
        if found is not None:
            below[node.axis] = slice(*found)
    elif isinstance(node, Merge):
        below.pop(node.to.name, None)
    elif isinstance(node, Relabel):
        names = {new: old for old, new in node.pairs}
        below = {names.get(name, name): place for name, place in below.items()}
    return below


def _run(axes: list[tuple[str, int | str]], state: _State) -> tuple[int, int] | None:
    """Return the first and the end of the run of places along merged axes that a state allows, or None if it is not one run."""
    start, length = 0, 1
    for name, size in axes:
        if not isinstance(size, int):
            return None
        place = state.get(name, slice(0, size))
        first, many = (place, 1) if isinstance(place, int) else (place.start, place.stop - place.start)
        if length > 1 and many != size:
            return None
        start, length = start * size + first, length * many
    return start, start + length


def _is_view(node: Node) -> bool:
    """Tell whether a node gives its one operand's values in another form or type."""
    return isinstance(node, Index | Narrow | Split | Merge | Relabel) or (isinstance(node, Map) and node.op == "cast")


def _stretches(node: Node, state: _State) -> list[Stretch]:
    """Return the stretches of the weights below a value that depends on no input."""
    chain, at = node, dict(state)
    while _is_view(chain):
        at = _down(chain, at)
        chain = chain.operands[0]
    if isinstance(chain, Weight):
        return [Stretch(chain.name, tuple(_place(dim, at) for dim in chain.dims))]
    return [Stretch(leaf.name) for leaf in topological([chain]) if isinstance(leaf, Weight)]


def _place(dim: tuple[Axis, ...], state: _State) -> str:
    axes = [(axis.name, axis.size) for axis in dim]
    if not any(name in state for name, _ in axes):
        return ":"
    found = _run(axes, state)
    if found is None:
        at = ", ".join(f"{name}={_written(state[name])}" for name, _ in axes if name in state)
        return f"{at} of {'·'.join(name for name, _ in axes)}"
    whole = 1
    for _, size in axes:
        whole *= int(size)
    return ":" if found == (0, whole) else f"{found[0]}:{found[1]}" if found[1] - found[0] > 1 else str(found[0])


def _written(place: int | slice) -> str:
    return str(place) if isinstance(place, int) else f"{place.start}:{place.stop}"


def _weights_among(nodes: Iterable[Node], known: Facts) -> list[str]:
    return [
        leaf.name
        for node in nodes
        if known.weight_only(node)
        for leaf in topological([node])
        if isinstance(leaf, Weight)
    ]
