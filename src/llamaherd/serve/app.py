"""The application: routes, the order of what stands before them, and what happens from start to end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp

from .access import Access
from .api import about, chat, completions, conversations, metrics, moderations, render, rewards, tokens
from .api.shapes import ANY_ERROR
from .bodies import Bodies
from .door import Door, asks_for_keys
from .errors import add_handlers
from .journal import Journal, open_log
from .keys import Keys
from .metrics import Measured
from .page import routes as page
from .renderer import Renderer
from .service import Service

ROUTERS = (
    about.router, chat.router, completions.router, tokens.router, moderations.router, rewards.router, metrics.router,
    conversations.router, render.router, page.router,
)  # fmt: skip


class App(FastAPI):
    """Routes, and before them, from the outside in: what is counted, the journal, the door, who asks, and what bodies must be."""

    def build_middleware_stack(self) -> ASGIApp:
        """Around everything of the framework, so that its own answers, to paths that do not exist or to errors, pass through all of them."""
        service: Service = self.state.service
        config = service.config
        inner: ASGIApp = Bodies(super().build_middleware_stack(), config.limits, {"/api/import": config.store.import_bytes})
        if asks_for_keys(config):
            inner = Access(inner, config, Keys(config.folder))
        self.state.door = Door(inner, service)
        outer: ASGIApp = Journal(self.state.door, open_log(config.log), config.log_text) if config.log else self.state.door
        return Measured(outer, service.metrics)


def create_app(service: Service) -> App:
    """Loading begins when the server starts, so that it can say from the first moment that it loads. Raises UserError for names and files."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.start())
        yield
        loading.cancel()  # who was told to end does not wait for a model to be read
        await asyncio.to_thread(service.close)
        await app.state.renderer.close()

    app = App(title="llamaherd", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.renderer = Renderer()
    add_handlers(app, [route for router in ROUTERS for route in router.routes if isinstance(route, Route)])
    for router in ROUTERS:
        app.include_router(router, responses=ANY_ERROR)
    app.middleware_stack = app.build_middleware_stack()
    return app
