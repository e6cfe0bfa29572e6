"""Copy: templates and traits in, mails and calls to action out."""
