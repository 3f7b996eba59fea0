"""The command line. `main.py` names the commands; each body lives in a module of its own and is imported late."""
