"""The command line: talks to the farm through kernfarm.client only."""
