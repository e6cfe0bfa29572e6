"""What it was worth: experiment results, journey funnels and copy rankings."""
