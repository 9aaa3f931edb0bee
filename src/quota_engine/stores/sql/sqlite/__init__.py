"""The dialect of SQLite: a store in one file, from Python's standard library."""
