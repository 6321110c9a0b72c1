"""An application that takes jobs over HTTP."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jobs.queue import enqueue


async def post(request: Request) -> JSONResponse:
    return JSONResponse(await enqueue(request.path_params["name"]), status_code=201)


app = Starlette(routes=[Route("/jobs/{name}", post, methods=["POST"])])
