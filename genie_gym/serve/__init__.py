"""Playing worlds over HTTP and WebSocket; the protocol is written down in docs/serve.md."""
