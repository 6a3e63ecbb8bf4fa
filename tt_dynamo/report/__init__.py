"""What a compilation did, as reports, dumps and drawings."""
