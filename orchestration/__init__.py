"""How Upnext is wired and started. `definitions.py` lists what Dagster sees; `cli.py` is the `upnext` command."""
