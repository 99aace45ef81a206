"""The loop over tokens for a GPU: shapes that stay the same, so that a token is one CUDA graph and needs no wait.

A decoded token is some thousand small kernels, and starting them from Python takes several times as long as running
them. A graph starts all at once, but only with the shapes and addresses that it was recorded with. So, unlike
rollout.decode_packed, which draws the same tokens,

    finished rows keep drawing, unread; every LOOK tokens the others are packed if a smaller size in ROWS holds them
    attention reads the cache up to a multiple of WIDTH tokens, behind a mask
    cache, inputs and graphs are kept from rollout to rollout: one graph for each (rows, width, options)
"""

from collections.abc import Callable
from functools import partial

import torch
from transformers.cache_utils import Cache, DynamicLayer

from rollout import Draws, decode_packed, draw

LOOK, WIDTH = 16, 256  # tokens
ROWS = (8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # and multiples of 512
TOLERANCE = 1e-3  # in a log-probability, between a graph and the same kernels started one by one: they should be equal


class _Slots(DynamicLayer):
    """A layer's keys and values in buffers (N, H, W, d) that stay; a token is written at a place known to the device.

    The first `rows` and `width` of them take part.
    """

    def __init__(self, layer: DynamicLayer, rows: int, width: int, at: torch.Tensor):
        super().__init__()
        dtype, kind = layer.keys.dtype, at.device.type
        if torch.is_autocast_enabled(kind):  # attention would cast the whole past to it, for every token
            dtype = torch.get_autocast_dtype(kind)
        shapes = ((rows, x.shape[1], width, x.shape[3]) for x in (layer.keys, layer.values))
        # zeros: a place that was never written is masked, but NaN in it would spread
        self.keys, self.values = (torch.zeros(shape, dtype=dtype, device=at.device) for shape in shapes)
        self.is_initialized, self.at = True, at

    def update(self, key_states, value_states, *_, **__):
        seen = [x[: self.rows, :, : self.width] for x in (self.keys, self.values)]
        for x, new in zip(seen, (key_states, value_states), strict=True):
            x.index_copy_(2, self.at, new.to(x.dtype))
        return tuple(seen)


class FixedShapes:
    """`rollout`'s decode. It keeps buffers and graphs: one object for one model, whose weights may change in place.

    record: runs a function and makes a graph of it, in the memory of earlier ones (run.ranks.record); None: no graphs.
    After one that fails or draws otherwise none is used, and `say` is told why. look: tokens between looks at the ends.
    """

    def __init__(self, record: Callable | None = None, say: Callable[[str], None] = print, look: int = LOOK):
        self.record, self.say, self.look = record, say, look
        self.recorded, self.pool, self.size, self.origin = {}, None, (0, 0, 0), None

    def __call__(
        self, model, inputs: dict, parents: torch.Tensor, logits: torch.Tensor, draws: Draws, stopped=None
    ) -> None:
        """As rollout.decode_packed, to which it leaves ALiBi and other caches: sliding windows, recurrent states."""
        layers = getattr(inputs["cache"], "layers", [])
        plain = all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers)
        if not layers or not plain or inputs.get("position_ids") is None or getattr(model.config, "alibi", False):
            return decode_packed(model, inputs, parents, logits, draws, stopped)
        (N, T), L = draws.tokens.shape, layers[0].keys.shape[2]
        self._make_room(model, layers, inputs, N, L + T, draws)
        self._fill(layers, inputs, parents, logits, draws)
        n = fit(N)
        for t in range(1, T):
            if t % self.look == 0:
                if stopped:
                    self.ended[:n] |= stopped(self.tokens, self.alive[:n], t, self.look)
                left = (~self.ended[:n]).nonzero().squeeze(1)  # the only wait for the device
                draws.report(N - len(left))
                if len(left) == 0:
                    break
                n = self._pack(left, n)
            width = multiple(L + t, WIDTH)
            key, token = (n, width, *draws.options.values()), partial(self._token, model, n, width, draws.options)
            if key in self.recorded:
                self.recorded[key].replay()
            elif self.record:
                self._record(key, token)
            else:
                token()
        draws.tokens.copy_(self.tokens[:N, :T])
        draws.logprobs.copy_(self.logprobs[:N, :T])

    def _make_room(self, model, layers, inputs, N: int, width: int, draws: Draws) -> None:
        """Buffers for N rows of so many tokens, if those from before don't do; then their graphs are void."""
        T, weights = draws.tokens.shape[1], tuple(p.data_ptr() for p in model.parameters())
        size = (fit(N), multiple(width, WIDTH), T)
        cast = torch.is_autocast_enabled(draws.tokens.device.type)
        origin = (weights, draws.logprobs.dtype, draws.tokens.device, draws.ends.shape, cast)
        if origin == self.origin and all(new <= old for new, old in zip(size, self.size, strict=True)):
            return
        self.recorded, self.pool, self.cache = {}, None, None  # frees what they held, before more is taken
        self.size, self.origin = size, origin
        (N, W, T), new = size, partial(torch.zeros, device=draws.tokens.device)
        self.at, self.t = new(1, dtype=torch.long), new(1, dtype=torch.long)  # of the present token: in cache, in row
        self.cache = Cache(layers=[_Slots(layer, N, W, self.at) for layer in layers])
        self.alive, self.ended = new(N, dtype=torch.long), new(N, dtype=torch.bool)  # (N,): the sample in each row
        self.ids = new((N, 1), dtype=torch.long)
        self.mask = new((N, 1, 1, W), dtype=self.cache.layers[0].keys.dtype)  # 0 where a row attends, else -inf
        self.position = new((*inputs["position_ids"].shape[:-2], N, 1), dtype=torch.long)  # (N, 1), or (axes, N, 1)
        self.uniforms, self.tokens = new((N, T), dtype=torch.float64), new((N, T), dtype=torch.long)
        self.logprobs = new((N, T), dtype=draws.logprobs.dtype)
        self.ends = torch.zeros_like(draws.ends)

    def _fill(self, layers, inputs, parents, logits, draws) -> None:
        """The prompts' keys and values, once per row; and the first tokens, drawn from the prompts' last logits."""
        (N, T), L = draws.tokens.shape, layers[0].keys.shape[2]
        for mine, layer in zip(self.cache.layers, layers, strict=True):
            mine.keys[:N, :, :L], mine.values[:N, :, :L] = layer.keys[parents], layer.values[parents]
        self.mask.fill_(-torch.inf)
        padded = inputs.get("attention_mask")  # None: nothing is
        self.mask[:N, 0, 0, :L] = 0.0 if padded is None else padded[:, :L].log()
        self.mask[N:, ..., 0] = 0.0  # rows of no sample attend to something, or their softmax would be NaN
        self.position.zero_()
        self.position[..., :N, :] = inputs["position_ids"][..., -1:]
        torch.arange(len(self.alive), out=self.alive)
        self.uniforms[:N, :T], self.tokens[:N, :T] = draws.uniforms, draws.ends[0]
        self.ends.copy_(draws.ends)
        self.at.fill_(L)
        self.t.zero_()
        torch.ge(self.alive, N, out=self.ended)
        self._draw(logits, N, draws.options)

    def _draw(self, logits: torch.Tensor, n: int, options: dict) -> None:
        """The token at t of the first n rows, from logits (n, V)."""
        place = self.alive[:n] * self.tokens.shape[1] + self.t  # (n,), in the flattened (N, T)
        drawn, logprob = draw(logits, self.uniforms.view(-1)[place], **options)
        self.tokens.view(-1).index_copy_(0, place, drawn)
        self.logprobs.view(-1).index_copy_(0, place, logprob.to(self.logprobs.dtype))
        self.ended[:n] |= (drawn[:, None] == self.ends).any(dim=1)
        self.ids[:n, 0] = drawn
        self.t += 1

    def _token(self, model, n: int, width: int, options: dict) -> None:
        """All that a token is; no shape or address in it depends on what is drawn."""
        for layer in self.cache.layers:
            layer.rows, layer.width = n, width
        kind = self.ids.device.type
        # a cast that autocast keeps would live in the memory of one graph and be read by others
        with torch.autocast(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind), cache_enabled=False):
            self.mask.index_fill_(3, self.at, 0.0)
            inputs = {"attention_mask": self.mask[:n, :, :, :width], "position_ids": self.position[..., :n, :]}
            out = model(input_ids=self.ids[:n], cache=self.cache, use_cache=True, **inputs)
            self.position += 1
            self.at += 1
            self._draw(out.logits[:, -1], n, options)

    def _record(self, key, token: Callable[[], None]) -> None:
        """Draws a token and records its graph, which must then draw the same; if it doesn't, no more graphs."""
        state = (self.at, self.t, self.position, self.ids, self.ended, self.tokens, self.logprobs)
        before = [x.clone() for x in state]

        def again(draw_token: Callable[[], None]) -> None:
            for x, old in zip(state, before, strict=True):
                x.copy_(old)
            draw_token()

        try:
            graph = self.record(token, self.pool)
            tokens, logprobs = self.tokens.clone(), self.logprobs.clone()
            again(graph.replay)
            others, gap = int((self.tokens != tokens).sum()), float((self.logprobs - logprobs).abs().max())
            if not others and gap <= TOLERANCE:
                self.recorded[key], self.pool = graph, graph.pool()
                return
            wrong = f"a graph drew {others} other tokens, and log-probabilities differ by up to {gap:.2g}"
        except RuntimeError as error:
            wrong = str(error).partition("\n")[0]
        self.record, self.recorded = None, {}
        self.say(f"CUDA graphs are off, and sampling is slower: {wrong}")
        again(token)

    def _pack(self, left: torch.Tensor, n: int) -> int:
        """Moves the rows that have not ended to the front, if that is fewer rows: how many now take part."""
        m = fit(len(left))
        if m >= n:
            return n
        rows = torch.cat([left, self.ended[:n].nonzero().squeeze(1)])[:m]  # ended ones fill up
        for layer in self.cache.layers:
            for x in (layer.keys, layer.values):
                x[:m] = x[rows]
        for x in (self.alive, self.ended, self.ids, self.mask):
            x[:m] = x[rows]
        self.position[..., :m, :] = self.position[..., rows, :]
        return m


def fit(rows: int) -> int:
    """The smallest number of rows that has graphs and holds these."""
    return next((n for n in ROWS if n >= rows), multiple(rows, 512))


def multiple(x: int, of: int) -> int:
    """x, rounded up."""
    return -(-x // of) * of
