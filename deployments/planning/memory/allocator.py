"""How much memory a computation graph needs when tensors share it: llama.cpp's allocator, on sizes
alone.

A graph is built of Nodes as ggml builds it, each node gets a backend (a device or the host),
tensors that cross backends get copies, and the best-fit allocator runs over the result. The peaks
are the compute buffers.

Sources: ggml/src/ggml-backend.cpp (ggml_backend_sched_split_graph, its passes 1 to 5) and
ggml/src/ggml-alloc.c (ggml_gallocr_alloc_graph_impl, ggml_dyn_tallocr_alloc, ggml_op_can_inplace).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNASSIGNED = -1


class Node:
    """A tensor. `size` in bytes; `layout` is equal where ggml would let one overwrite the other."""

    __slots__ = (
        "allocated",
        "children",
        "computes",
        "copies",
        "external",
        "follows_weights",
        "inplace",
        "is_dependency",
        "is_input",
        "is_output",
        "is_weight",
        "layout",
        "name",
        "offload_rows",
        "offset",
        "owner",
        "backend",
        "root",
        "size",
        "srcs",
        "views",
        "visited",
        "wants_memory",
    )

    def __init__(
        self,
        name: str,
        size: int,
        layout: tuple[Any, ...] | None = None,
        srcs: Sequence[Node] = (),
        *,
        inplace: bool = False,
        root: Node | None = None,
        backend: int = UNASSIGNED,
        external: bool = False,
        computes: bool = True,
    ) -> None:
        self.name, self.size, self.layout, self.srcs = name, size, layout, list(srcs)
        self.inplace = inplace
        self.root = root
        self.backend = backend
        self.external = external
        self.computes = computes
        # Until it has some: weights, caches and views have none of their own.
        self.wants_memory = root is None and not external
        self.is_input = self.is_output = self.is_weight = self.is_dependency = (
            self.visited
        ) = False
        self.follows_weights = True
        self.offload_rows = 0
        self.children = self.views = 0
        self.allocated = False
        self.owner = UNASSIGNED
        self.offset = 0
        self.copies: dict[int, Node] = {}

    @property
    def is_external(self) -> bool:
        """In a buffer of its own: weights and the KV cache."""
        if self.root:
            return self.root.external
        return self.external

    def __repr__(self) -> str:
        return f"<{self.name} {self.size}>"


class Arena:
    """One backend's memory: best fit among free blocks, the last block is endless
    (ggml_dyn_tallocr)."""

    def __init__(self, alignment: int) -> None:
        self.alignment = alignment
        self.blocks: list[list[int]] = [[0, 1 << 62]]
        self.peak = 0

    def alloc(self, size: int) -> int:
        size = -(-size // self.alignment) * self.alignment
        blocks = self.blocks
        best = -1
        best_size = 1 << 62
        for index in range(len(blocks) - 1):
            if size <= blocks[index][1] <= best_size:
                best = index
                best_size = blocks[index][1]
        block = blocks[best]
        offset = block[0]
        block[0] += size
        block[1] -= size
        if block[1] == 0:
            del blocks[best]
        self.peak = max(self.peak, offset + size)
        return offset

    def free(self, offset: int, size: int) -> None:
        size = -(-size // self.alignment) * self.alignment
        blocks = self.blocks
        for index, block in enumerate(blocks):
            if block[0] + block[1] == offset:
                block[1] += size
                if (
                    index + 1 < len(blocks)
                    and block[0] + block[1] == blocks[index + 1][0]
                ):
                    block[1] += blocks.pop(index + 1)[1]
                return
            if offset + size == block[0]:
                block[0], block[1] = offset, block[1] + size
                if index and blocks[index - 1][0] + blocks[index - 1][1] == offset:
                    blocks[index - 1][1] += blocks.pop(index)[1]
                return
            if block[0] > offset:
                blocks.insert(index, [offset, size])
                return
        blocks.append([offset, size])


def assign_backends(
    nodes: Sequence[Node], host: int, offloads: Sequence[bool] = ()
) -> None:
    """Passes 1, 2 and 4: weights pull operations to their backend, the rest follows its neighbours.

    `offloads[i]`: device i takes over operations of large batches whose weights are on the host.
    """
    for node in nodes:
        if node.backend == UNASSIGNED:
            node.backend = _place_by_weights(node, host, offloads)
    _spread([node for node in nodes if node.computes], host)
    for node in nodes:
        _settle(node, host)


def _spread(nodes: Sequence[Node], host: int) -> None:
    """Nodes without a backend take that of the last one before them, then of the next one after
    them; the host's only where there is no other."""
    for order, skip_host in ((1, True), (-1, True), (1, False), (-1, False)):
        current = UNASSIGNED
        for node in nodes[::order]:
            if node.backend != UNASSIGNED:
                if skip_host and node.backend == host:
                    current = UNASSIGNED
                else:
                    current = node.backend
            elif current != UNASSIGNED:
                node.backend = current


def _settle(node: Node, host: int) -> None:
    """What is left goes where the tensor lies that it is a view of; else nodes go on the host, and
    sources to their node."""
    if node.backend == UNASSIGNED:
        if node.root and node.root.backend != UNASSIGNED:
            node.backend = node.root.backend
        else:
            node.backend = host
    for src in node.srcs:
        if src.backend == UNASSIGNED:
            rooted = src.root is not None and src.root.backend != UNASSIGNED
            src.backend = src.root.backend if rooted and src.root else node.backend


def _place_by_weights(node: Node, host: int, offloads: Sequence[bool]) -> int:
    if node.root is not None and node.root.external:
        return node.root.backend
    if node.is_input:
        return host
    if not node.follows_weights:
        return UNASSIGNED
    for src in node.srcs:
        if src.is_weight:
            if src.backend == host and node.offload_rows >= 32:
                return next(
                    (backend for backend, wants in enumerate(offloads) if wants), host
                )
            return src.backend
    return UNASSIGNED


def with_copies(
    nodes: Sequence[Node], graph_inputs: Sequence[Node] = (), n_copies: int = 1
) -> list[Node]:
    """Pass 5 and the graph's copy: at the start of each run of nodes in one backend, what it needs
    from others.

    With n_copies > 1 (pipelined devices) every input and every copy exists that many times, all the
    time.
    """
    runs = _Runs()
    for node in nodes:
        if node.computes:
            runs.enter(node)
        runs.current.append(node)
    runs.close()
    if n_copies == 1:
        return runs.result
    for node in (*graph_inputs, *runs.copies):
        node.is_output = True
    for copy in runs.copies:
        copy.is_input = True
    spares = [
        spare
        for node in (*graph_inputs, *runs.copies)
        for spare in _spares(node, n_copies - 1)
    ]
    return spares + runs.result


class _Runs:
    """Nodes in a row that are computed in one backend, with copies of what they need from
    others."""

    __slots__ = ("copies", "current", "inputs", "backend", "result")

    def __init__(self) -> None:
        self.result: list[Node] = []
        self.copies: list[Node] = []
        # The run that is being gathered, and what has to be copied before it.
        self.current: list[Node] = []
        self.inputs: list[Node] = []
        self.backend = UNASSIGNED

    def enter(self, node: Node) -> None:
        """Makes the node's backend the run's, and its sources ones that lie there."""
        # Weights of another backend end a run that has copies already.
        needs_weights = self.inputs and any(
            src.is_weight and src.backend != node.backend for src in node.srcs
        )
        if self.backend != UNASSIGNED and (
            node.backend != self.backend or needs_weights
        ):
            self.close()
        self.backend = backend = node.backend
        for index, src in enumerate(node.srcs):
            if src.backend != backend:
                node.srcs[index] = src.copies.get(backend) or self._copied(src)

    def _copied(self, src: Node) -> Node:
        copy = src.copies[self.backend] = Node(
            "copy", src.size, src.layout, backend=self.backend
        )
        self.copies.append(copy)
        self.inputs.append(src)
        return copy

    def close(self) -> None:
        for source in self.inputs:
            # Keeps the source until it has been copied.
            keeper = Node(
                "keep",
                0,
                None,
                [source],
                root=source.root or source,
                backend=source.backend,
            )
            keeper.is_dependency = True
            self.result.append(keeper)
            self.result.append(source.copies[self.backend])
        self.result.extend(self.current)
        self.current.clear()
        self.inputs.clear()


def _spares(node: Node, count: int) -> list[Node]:
    spares = [Node("spare", node.size, backend=node.backend) for _ in range(count)]
    for spare in spares:
        spare.is_input = spare.is_output = True
    return spares


def peaks(
    nodes: Sequence[Node], leafs: Sequence[Node], alignments: Sequence[int]
) -> list[int]:
    """Bytes of compute memory of each backend (ggml_gallocr_alloc_graph_impl)."""
    arenas = [Arena(alignment) for alignment in alignments]
    for leaf in leafs:
        if leaf.wants_memory:
            _allocate(leaf, arenas)
    _count_uses(nodes, arenas)
    for node in nodes:
        for src in node.srcs:
            if src.wants_memory:
                _allocate(src, arenas)
        if node.wants_memory:
            _allocate(node, arenas)
        for src in node.srcs:
            src.children -= 1
            is_over = src.children == 0 and src.views == 0
            if is_over and (src.allocated or src.root is not None):
                _release(src, arenas)
    return [arena.peak for arena in arenas]


def _count_uses(nodes: Sequence[Node], arenas: Sequence[Arena]) -> None:
    """How many nodes read each one and are views of it; inputs get their memory before all else."""
    for node in nodes:
        if node.root is not None and not node.is_dependency:
            node.root.views += 1
        if node.is_input and node.wants_memory:
            _allocate(node, arenas)
        for src in node.srcs:
            src.children += 1
            if src.is_input and src.wants_memory:
                _allocate(src, arenas)


def _allocate(node: Node, arenas: Sequence[Arena]) -> None:
    node.wants_memory = False
    if node.inplace and _take_over(node, arenas):
        return
    node.owner = node.backend
    node.allocated = True
    node.offset = arenas[node.backend].alloc(node.size)


def _take_over(node: Node, arenas: Sequence[Arena]) -> bool:
    """Writes over one of its sources. Never over a view: the engine's allocator does not own
    those."""
    for parent in node.srcs:
        is_own = parent.root is None and parent.allocated
        if (
            not is_own
            or parent.is_output
            or parent.layout != node.layout
            or parent.children != 1
            or parent.views
        ):
            continue
        parent.allocated = False
        node.owner = parent.owner
        node.offset = parent.offset
        node.allocated = True
        alignment = arenas[parent.owner].alignment
        spare = -(-parent.size // alignment) - -(-node.size // alignment)
        if spare > 0:
            end = node.offset + -(-node.size // alignment) * alignment
            arenas[parent.owner].free(end, spare * alignment)
        return True
    return False


def _release(node: Node, arenas: Sequence[Arena]) -> None:
    if node.root is not None:
        root = node.root
        root.views -= 1
        if root.views or root.children:
            return
        node = root
    if node.allocated and not node.is_output:
        node.allocated = False
        arenas[node.owner].free(node.offset, node.size)
