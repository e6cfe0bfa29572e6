"""Otto, an invented project-management SaaS: the demo product, whose users act and respond to what they are shown."""
