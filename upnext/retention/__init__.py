"""How long things are kept, and `upnext prune`, which deletes and archives what is older."""
