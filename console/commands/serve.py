"""`revector serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from revector.console.context import context_of, note, open_aloud

app = typer.Typer()


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", help="0 picks a free one.", min=0, max=65535)
    ] = 8765,
    token_env: Annotated[
        str, typer.Option("--token-env", metavar="NAME", help="The environment variable with the token.")
    ] = "REVECTOR_SERVE_TOKEN",  # noqa: S107
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Serve without a token; on a loopback address only.")
    ] = False,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", metavar="N", help="Larger ones get 413.", min=1024)
    ] = 1024 * 1024,
    max_concurrency: Annotated[
        int, typer.Option("--max-concurrency", metavar="N", help="More at once get 503.", min=1, max=1024)
    ] = 32,
    timeout_s: Annotated[
        float, typer.Option("--timeout-s", metavar="SECONDS", help="For one search.", min=0.1, max=600)
    ] = 5.0,
    pool_size: Annotated[
        int, typer.Option("--pool-size", metavar="N", help="Connections to the database.", min=1, max=256)
    ] = 8,
    rerank: Annotated[
        str | None,
        typer.Option("--rerank", metavar="SPEC", help="The cross-encoder for requests that ask to rerank."),
    ] = None,
) -> None:
    """Search over HTTP, with OpenAPI: for services in any language.

    POST /search, POST /search/vector, GET /versions, /metrics, /openapi.json and /healthz. A bearer token from the
    environment is required everywhere but at /healthz. SIGTERM stops it cleanly.
    """
    from revector.core.errors import UnreachableError

    try:
        import fastapi  # noqa: F401  (the extra is asked for before anything is opened)
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UnreachableError(
            f"revector serve needs the package {error.name}, which is not installed.",
            "Install it: pip install 'revector[serve]'",
        ) from None

    from revector.console.serve.access import SHORT_TOKEN, is_loopback, read_access
    from revector.console.serve.limits import Limits
    from revector.console.serve.server import listen, url_of
    from revector.console.serve.server import serve as run
    from revector.console.serve.service import Service
    from revector.core.cross_encoders import parse_pair_spec
    from revector.core.retrieval import EncoderCache

    own = context_of(context)
    access = read_access(token_env, host, no_token=no_token)
    if rerank is not None:
        parse_pair_spec(rerank, "reranker")
    limits = Limits(max_body_bytes, max_concurrency, timeout_s)
    listener = listen(host, port)
    service = Service(own.database, limits, encoders=EncoderCache(open_aloud), rerank=rerank, pool_size=pool_size)
    if access.token is not None and len(access.token) < SHORT_TOKEN:
        note(f"The token in {token_env} is short enough to guess. Make a better one: openssl rand -hex 32")
    if not is_loopback(host):
        note("This is HTTP without encryption. Put a TLS proxy in front of it.")
    note(f"serving {own.database.name}, schema {own.database.schema}, on {url_of(listener)}")
    try:
        run(service, access, limits, listener, note)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    note("ended")
