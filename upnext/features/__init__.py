"""Features: what a documented column may say of itself."""
