"""Models of other frameworks in our schema: exporters that run where the framework is installed."""
