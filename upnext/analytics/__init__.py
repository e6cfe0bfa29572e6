"""Analytics: experiment results, journey funnels and copy rankings."""
