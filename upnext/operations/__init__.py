"""What people do by hand, each a function of a project."""
