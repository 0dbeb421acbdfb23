"""What answers look like: for the OpenAPI page, and for tests, which hold every answer to it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
"""It came to its end, was cut by length, calls tools, or was refused by the guard."""


class ErrorBody(Shape):
    """What went wrong."""

    message: str
    """For people, in one line."""
    type: str
    param: str | None
    """The field at fault."""
    code: str | None
    """For programs, such as `model_not_found` or `context_length_exceeded`."""


class Error(Shape):
    """Every error of every route."""

    error: ErrorBody


class PromptDetails(Shape):
    cached_tokens: int
    """Tokens of the prompt that were read before."""


class Usage(Shape):
    """Tokens; a prompt with several answers counts once, and the token that ends an answer counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class TokenLogProb(Shape):
    """One token."""

    token: str
    """Its text; a byte that is no character of its own as `<0xE2>`."""
    logprob: float
    """The model's own: before temperature and the rest."""
    bytes: list[int] | None


class ChosenLogProb(TokenLogProb):
    top_logprobs: list[TokenLogProb]
    """The likeliest, the likeliest first."""


class ChatLogProbs(Shape):
    content: list[ChosenLogProb]
    refusal: None


class FunctionCall(Shape):
    name: str | None = None
    arguments: str
    """JSON text, in a stream the next piece of it."""


class AnsweredCall(Shape):
    """A call that the model asks for; in a stream its id and name come first."""

    index: int | None = None
    """In a stream, which call of the answer this is a part of."""
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCall


class AnswerMessage(Shape):
    """The answer."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[AnsweredCall] | None = None


class ChatChoice(Shape):
    index: int
    message: AnswerMessage
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason


class Extra(Shape):
    """What OpenAI's shapes have no place for."""

    dropped_turns: int
    """The oldest turns that were left out."""


class ChatCompletion(Shape):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    """Seconds since 1970."""
    model: str
    system_fingerprint: str
    """Changes with what may change answers: the model's files, the code, torch, the mode, the number of threads."""
    choices: list[ChatChoice]
    usage: Usage
    llamaherd: Extra | None = None
    """With `overflow: "drop-turns"`."""


class Delta(Shape):
    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[AnsweredCall] | None = None


class ChunkChoice(Shape):
    index: int
    delta: Delta
    logprobs: ChatLogProbs | None
    finish_reason: FinishReason | None


class ChatChunk(Shape):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    """Empty in the chunk that holds the usage."""
    usage: Usage | None = None
    llamaherd: Extra | None = None


class LogProbs(Shape):
    """Lists that match token by token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """null for the first token of a prompt, before which nothing stands."""
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]
    """Where each token's text begins in `text`, in characters."""


class Choice(Shape):
    index: int
    text: str
    logprobs: LogProbs | None
    finish_reason: FinishReason | None


class Completed(Shape):
    """What follows the prompts, or one event of a stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage | None = None


class PromptToken(Shape):
    id: int
    piece: str
    """As the vocabulary writes it."""
    text: str


class Preview(Shape):
    """The exact prompt."""

    model: str
    prompt: str
    """Begin and end written out as `<s>` and `</s>`."""
    tokens: list[PromptToken]
    count: int
    context: int
    """Tokens of prompt and answer together at most."""
    room: int
    """What is left for the answer."""
    dropped_turns: int


class Model(Shape):
    """A name that can be asked for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    """The folder of weights."""
    parent: str | None
    """The model that an adapter is on."""
    max_model_len: int | None
    """The context in tokens; null until the model is loaded."""
    type: Literal["chat", "reward"]
    """Whether it answers, or scores answers."""


class Me(Shape):
    """Who asks."""

    name: str
    signed_in: bool
    """By the cookie of a browser, rather than by a key in the request or, on loopback, by nothing."""


class Models(Shape):
    object: Literal["list"]
    data: list[Model]


class Tokenized(Shape):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Shape):
    prompt: str


class TokenizerInfo(Shape):
    """`bos_token` and `eos_token` are null since no text stands for them."""

    tokenizer_class: str
    bos_token: None
    eos_token: None
    bos_token_id: int
    eos_token_id: int
    vocab_size: int
    max_model_len: int


class Judgement(Shape):
    """How unsafe one text is."""

    flagged: bool
    """Whether it scores below the guard's threshold."""
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]
    turns_left_out: int
    """Oldest turns that the guard's context had no room for."""


class Moderation(Shape):
    id: str
    model: str
    results: list[Judgement]


class RewardOf(Shape):
    """How good one dialogue's last answer is."""

    object: Literal["reward"]
    index: int
    score: float
    """0 to 1."""
    logit: float


class RewardList(Shape):
    object: Literal["list"]
    model: str
    data: list[RewardOf]


class SavedHead(Shape):
    """A conversation without its messages."""

    id: str
    title: str
    created_s: float
    """Seconds since 1970."""
    updated_s: float


class Hit(Shape):
    """Where in a snippet what was sought stands, and in which message."""

    node: str
    start: int
    length: int


class Listed(SavedHead):
    snippet: str | None
    hit: Hit | None


class SavedList(Shape):
    data: list[Listed]
    next: str | None
    """The `before` of the next page."""


class Saved(SavedHead):
    leaf: str | None
    """The message that the page stands at."""
    settings: dict[str, Any]


class SavedMessage(Shape):
    """A message of a tree, under `parent`."""

    id: str
    parent: str | None
    role: Literal["system", "user", "assistant"]
    content: str
    model: str | None
    created_s: float
    meta: dict[str, Any]


class SavedTree(Saved):
    """A conversation with all of its messages."""

    nodes: list[SavedMessage]
    """Parents before their children."""


class SavedFile(Shape):
    """What `/api/import` reads."""

    format: Literal["llamaherd-conversations"]
    version: Literal[1]
    exported_s: float
    conversations: list[SavedTree]


class LeftOut(Shape):
    index: int
    why: str


class Imported(Shape):
    imported: int
    left_out: list[LeftOut]


class Rendered(Shape):
    html: list[list[str]]
    """The blocks of each text."""


class Health(Shape):
    status: Annotated[str, Field(examples=["loading", "ready", "draining", "failed"])]


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Error, "description": "What was asked for cannot be honoured; the message says why, `param` where."},
    404: {"model": Error, "description": "There is no such model."},
    413: {"model": Error, "description": "The body is too long."},
    429: {"model": Error, "description": "The queue is full; `Retry-After` says when to come again."},
    503: {"model": Error, "description": "The model is being loaded, or the server is ending."},
    504: {"model": Error, "description": "It took longer than the server's deadline."},
    "default": {"model": Error, "description": "Any other error, in the same shape."},
}
"""Of every route that needs a model."""
ANY_ERROR: dict[int | str, dict[str, Any]] = {"default": ERRORS["default"]}
"""Of every route."""
BAD: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (400, 404, 413, 503, "default")}


def streamed(chunk: type[BaseModel]) -> dict[str, Any]:
    """How a route's answer is described that also comes as events, each of which holds a `chunk`."""
    what = f"With `stream`: a `{chunk.__name__}` in the `data:` of each event, and `[DONE]` in the last."
    event = {"type": "object", "properties": {"data": {"type": "string", "description": what}}, "required": ["data"]}
    return {"content": {"text/event-stream": {"schema": event}}}
