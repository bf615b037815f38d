"""Search over HTTP, for services that are not written in Python: `revector serve`.

A request passes the door (token, limits, deadline), then a route, then the service that searches. Everything that is
refused or goes wrong is answered in one shape. FastAPI, uvicorn and prometheus-client are the extra `serve`.
"""
