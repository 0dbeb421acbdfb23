"""The application: routes, the order of what stands before them, and what happens from start to end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .api import about, chat
from .errors import add_handlers
from .service import Service

ROUTERS = (about.router, chat.router)


def create_app(service: Service) -> FastAPI:
    """Loading begins when the server starts, so that it can say from the first moment that it loads."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.start())
        yield
        await loading
        await asyncio.to_thread(service.close)

    app = FastAPI(title="llamaherd", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    add_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app
