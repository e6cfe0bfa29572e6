"""The pictures of the documentation: Otto's website, the report and the graph."""
