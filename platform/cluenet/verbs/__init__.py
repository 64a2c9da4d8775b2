"""The verbs of the command line, one function each. Everything heavy is imported by the verb that needs it."""
