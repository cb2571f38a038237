"""The command line: a module per verb, over small parts that know nothing of arguments."""
