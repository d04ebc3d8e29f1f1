"""What the end-to-end tests are made of: the real binary, a raw HTTP client, certificates, Lua as text."""
