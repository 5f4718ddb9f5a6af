"""Files to hand on: a report of one trace, a folder of several, all tables as a ZIP."""
