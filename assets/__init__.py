"""What exists, a folder for each subject: events, journeys, experiences, analytics."""
