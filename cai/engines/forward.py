"""One forward pass of a causal language model over packed tokens, with logits only where they are asked for.

Knows masks, layer kinds and caches of transformers; knows no requests. Shape suffixes: B rows, Q query tokens, K key tokens,
N asked-for places, H hidden, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from cai.engines.prefixes import Forest, TokenTree
from cai.engines.tree_attention import BUSH_TOKENS, FULL, SLIDING, TreeAttention, can_attend_in_trees, tree_attention
from cai.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

_log = logging.getLogger("cai.engines")

_TRIAL_WINDOW = 6
"""Of a trial of models with a window: theirs is mostly longer than any trial should be."""
_TRIAL_APART = {torch.bfloat16: 0.2, torch.float16: 0.05}
_TRIAL_APART_ELSE = 1e-3
"""How far a trial's logits may be apart, as a share of their spread over the vocabulary. With SmolLM2-135M right masks are
apart by 0.036, 0.004 and 3e-6, wrong ones by 0.3 to 1.2 (0.045 where the last of its thirty layers alone has a wrong one)."""
STRANGE_TO_MODELS = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What models raise that do not expect what they are given (NotImplementedError is a RuntimeError)."""


class Forward:
    """A model as the engine uses it.

    Args:
        model: Any causal language model whose layers attend to all earlier tokens or to a window of them.

    Raises:
        EngineError: For other kinds of layers (recurrent, chunked, …), whose state cannot be shared or refilled row by row, and
            for those that mask by places in a row whatever they are given (GPT-Neo's).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model: Any = model
        self.config: Any = cast("Any", model).config.get_text_config()
        window = getattr(self.config, "sliding_window", None)
        named = getattr(self.config, "layer_types", None) or getattr(self.config, "attention_layers", None)  # GPT-Neo's name
        kinds = set(named or [SLIDING if window else FULL])
        if not kinds <= {FULL, SLIDING}:
            raise EngineError(
                f"The local engine cannot run layers of the kind {', '.join(sorted(kinds - {FULL, SLIDING}))}.",
                "Serve the model (vLLM, SGLang, llama.cpp) and use it over HTTP.",
            )
        self._kinds: frozenset[str] = frozenset(kinds)
        self.window: int | None = int(window) if window and SLIDING in kinds else None
        # float32 kernels of CPUs treat the last one to three rows that do not fill a tile of four on a path of their own.
        self.rows_step = 4 if self.dtype is torch.float32 and self.device.type == "cpu" else 1
        """Numbers of rows that are a multiple of this are all multiplied alike, to the last bit."""
        self._boolean_masks = getattr(self.config, "_attn_implementation", "eager") == "sdpa"

    @property
    def device(self) -> torch.device:
        return cast("torch.device", self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        return cast("torch.dtype", self.model.dtype)

    @property
    def kv_bytes_per_token(self) -> int:
        """What one token of one row takes in the key-value cache."""
        config = self.config
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        return 2 * int(config.num_hidden_layers) * heads * width * self.dtype.itemsize

    def mask(self, full: Tensor, windowed: Tensor | None) -> Any:
        """Masks in the form this model takes.

        Args:
            full: Boolean mask_B1QK: who sees whom in layers that see everything.
            windowed: The same for layers with a window; None for models without one.
        """
        forms = {FULL: full, SLIDING: full if windowed is None else windowed}
        made = {kind: self._prepared(forms[kind]) for kind in self._kinds}
        return made if len(made) > 1 else next(iter(made.values()))

    def logits(
        self,
        ids_BQ: Tensor,
        places: tuple[Sequence[int], Sequence[int]],
        *,
        mask: Any = None,
        positions_BQ: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits of the next token at the asked-for places.

        The hidden states are picked out before the output head, so that a prompt of a thousand tokens costs one row of the
        vocabulary and not a thousand; what a model does to its logits (scaling, soft caps) is kept.

        Args:
            ids_BQ: Input tokens.
            places: Row and column of each asked-for place.
            mask: From `mask`; None for plain causal attention.
            positions_BQ: None for 0, 1, 2, …
            cache: Keys and values go there.

        Returns:
            logits_NV, in the model's precision.
        """
        return self._logits(
            places,
            input_ids=ids_BQ.to(self.device),
            attention_mask=mask,
            position_ids=None if positions_BQ is None else positions_BQ.to(self.device),
            past_key_values=cache,
            use_cache=cache is not None,
        )

    def tree_logits(self, forest: Forest, places: tuple[Sequence[int], Sequence[int]]) -> Tensor:
        """Logits of the next token at the asked-for places of a forest, each token after its ancestors alone.

        Args:
            forest: The trees.
            places: Tree, and place in it, of each.

        Returns:
            logits_NV, in the model's precision.

        Raises:
            ValueError: If a tree has branches and the model `can_branch` not.
        """
        if self.attends_in_trees:
            return self._packed_logits(forest.trees, places)
        if not (forest.is_chains or self.can_branch):
            raise ValueError("the model cannot be given trees with branches")
        return self._masked_logits(forest, places)

    @cached_property
    def can_branch(self) -> bool:
        """Whether tokens can be given ancestors of their own, by masks and positions; else each sequence goes alone.

        A trial decides: a model may count places itself (ALiBi), keep a state, take no such masks, or have no window where its
        configuration names one.
        """
        tree, places, sequences = _trial(int(self.config.vocab_size))
        with self._short_window():
            alone = torch.cat([self.logits(torch.tensor([each]), ([0], [len(each) - 1])) for each in sequences])
            able = self._is_as(alone, lambda: self._masked_logits(Forest((tree,)), ([0] * len(places), places)))
        if not able:
            _log.warning("%s cannot share what prompts begin with: each is scored whole.", type(self.model).__name__)
        return able

    @cached_property
    def attends_in_trees(self) -> bool:
        """Whether trees lie in one row and are attended to block by block (`tree_attention`); else they are padded, and masked.

        A trial decides: a model may do with its attention, or with its last layer, what nobody here has thought of.
        """
        if not (can_attend_in_trees(self.model) and self.can_branch):
            return False
        tree, at, _ = _trial(int(self.config.vocab_size))
        places = [0] * len(at), at
        with self._short_window():
            masked = self._masked_logits(Forest((tree,)), places)
            return self._is_as(masked, lambda: self._packed_logits([tree], places, bush_tokens=0))

    @contextmanager
    def _short_window(self) -> Generator[None]:
        """The model's windows are shorter than a trial, its own masks' too."""
        if self.window is None:
            yield
            return
        before = self.window
        self.window = self.config.sliding_window = min(before, _TRIAL_WINDOW)
        try:
            yield
        finally:
            self.window = self.config.sliding_window = before

    def _is_as(self, expected_NV: Tensor, attempt: Callable[[], Tensor]) -> bool:
        """Whether logits of an attempt are those expected, up to rounding; the log says why not."""
        try:
            found_NV = attempt()
        except STRANGE_TO_MODELS as error:
            if is_out_of_memory(error):
                raise  # it says nothing of the model
            _log.info("%s refuses a way of sharing prompts: %r", type(self.model).__name__, error)
            return False
        found_NV, expected_NV = (each.float() - each.float().mean(-1, keepdim=True) for each in (found_NV, expected_NV))
        apart = float(((found_NV - expected_NV).square().sum(-1) / expected_NV.square().sum(-1)).sqrt().amax())
        alike = apart <= _TRIAL_APART.get(self.dtype, _TRIAL_APART_ELSE)
        if not alike:
            _log.info("%s does not take a way of sharing prompts: logits are off by %.2g", type(self.model).__name__, apart)
        return alike

    def _packed_logits(
        self, trees: Sequence[TokenTree], places: tuple[Sequence[int], Sequence[int]], *, bush_tokens: int = BUSH_TOKENS
    ) -> Tensor:
        padding = TokenTree()
        padding.add([0] * (-sum(map(len, trees)) % self.rows_step))
        starts = [0, *accumulate(map(len, trees))]
        columns = [starts[tree] + place for tree, place in zip(*places, strict=True)]
        tree = TreeAttention([*trees, padding], columns, window=self.window, dtype=self.dtype, bush_tokens=bush_tokens)
        with tree_attention(self.model), self._last_mlp_at(columns, len(tree.tokens)):
            return self._logits(
                ([0] * len(columns), columns),
                input_ids=torch.tensor([tree.tokens]),
                position_ids=torch.tensor([tree.depths]),
                use_cache=False,
                cai_tree=tree,
            )

    def _masked_logits(self, forest: Forest, places: tuple[Sequence[int], Sequence[int]]) -> Tensor:
        if forest.is_chains:
            return self.logits(forest.ids(), places)
        mask = self.mask(forest.sees(), forest.sees(self.window) if self.window else None)
        return self.logits(forest.ids(), places, mask=mask, positions_BQ=forest.positions())

    def _logits(self, places: tuple[Sequence[int], Sequence[int]], **inputs: Any) -> Tensor:
        asked = len(places[0])
        rows, columns = (torch.tensor(self._in_steps(each), device=self.device) for each in places)

        def pick(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden_BQH, *others = inputs  # on the device of the last layers, where the model lies on several
            return (hidden_BQH[rows.to(hidden_BQH.device), columns.to(hidden_BQH.device)][None], *others)

        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(pick)
        try:
            with torch.inference_mode():
                output = self.model(**inputs)
        finally:
            hook.remove()
        logits: Tensor = output.logits
        if logits.shape[0] != 1 or logits.shape[1] != len(rows):
            logits = logits[rows, columns][None]  # a head that is not called as a module
        return logits[0, :asked]

    @contextmanager
    def _last_mlp_at(self, columns: Sequence[int], tokens: int) -> Generator[None]:
        """What follows the last layer's attention is computed for the asked-for tokens of a row only; the others get zeros."""
        if self._last_mlp is None:
            yield
            return
        picked = torch.tensor(self._in_steps(columns))

        def pick(_: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (inputs[0][:, picked],)

        def put_back(_: Any, __: Any, some_BNH: Tensor) -> Tensor:
            output_BQH = some_BNH.new_zeros(some_BNH.shape[0], tokens, some_BNH.shape[2])
            output_BQH[:, picked] = some_BNH
            return output_BQH

        hooks = self._last_mlp.register_forward_pre_hook(pick), self._last_mlp.register_forward_hook(put_back)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @cached_property
    def _last_mlp(self) -> torch.nn.Module | None:
        """The feed-forward part of the last layer, where the model keeps its layers in one list and calls that part `mlp`."""
        layers = [
            each
            for each in self.model.modules()
            if isinstance(each, torch.nn.ModuleList) and len(each) == self.config.num_hidden_layers
        ]
        return getattr(layers[0][-1], "mlp", None) if len(layers) == 1 else None

    def _in_steps(self, numbers: Sequence[int]) -> list[int]:
        """The numbers, with the last repeated up to a multiple of `rows_step`."""
        return [*numbers, *[numbers[-1]] * (-len(numbers) % self.rows_step)]

    def _prepared(self, mask_B1QK: Tensor) -> Tensor:
        mask_B1QK = mask_B1QK.to(self.device)
        if self._boolean_masks:
            return mask_B1QK
        empty = torch.zeros(mask_B1QK.shape, dtype=self.dtype, device=self.device)
        return empty.masked_fill_(~mask_B1QK, torch.finfo(self.dtype).min)


def _trial(vocabulary: int) -> tuple[TokenTree, list[int], list[list[int]]]:
    """A tree of two sequences that differ in more than they share; of each, two places in it, and what leads to them."""
    ids = [number * 7919 % vocabulary for number in range(22)]
    sequences = sorted([ids[:14], [*ids[:6], *ids[14:]]])
    tree = TokenTree()
    paths = [tree.add(sequence) for sequence in sequences]
    lengths = (9, 14)
    return tree, [path[length - 1] for path in paths for length in lengths], [each[:n] for each in sequences for n in lengths]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU (where torch raises a plain RuntimeError)."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("not enough memory", "can't allocate memory", "out of memory")
    )
