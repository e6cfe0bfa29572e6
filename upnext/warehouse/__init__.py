"""The warehouse: its server, its connections, its schema and its locks."""
