"""What the socket tests stand on.

`catalogue`: the servers, and what each of them makes impossible. `process`: starts and
ends them. `wire`, `websocket`: the raw client, which knows when each byte arrived.
`observer`: events that the probe applications report, and gates that calls wait at.
`visit`: one test's own part of all that.
"""
