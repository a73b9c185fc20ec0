"""Is this machine ready, and do today's studies look like those the bundle was made for?"""
