"""The store in Redis and Valkey: the state machine in Lua, one atomic script for each call.

The scripts are in ``lua/``, and ``codecs/`` has their texts. This package may import what ``stores`` may import.
"""
