"""Time, ceilings, peers and reports. Nothing here knows a family; nothing here is timed before it is right."""
