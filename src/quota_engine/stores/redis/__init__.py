"""The Redis and Valkey backend: the machine again, in Lua, one atomic script a call."""
