"""Search over HTTP, for services that are not written in Python: `revector serve`.

A request passes the middleware (token, limits, deadline), then a route, then the service that searches. All errors
have one format. FastAPI, uvicorn and prometheus-client are the extra `serve`.
"""
