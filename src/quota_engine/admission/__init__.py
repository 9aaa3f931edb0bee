"""Who may try for a place, and when: policies that stand in front of the reserve. Pure: time, ids and seeds are
arguments."""
