"""Building blocks of reports: SVG plots, the HTML page and statistics. Imports the standard library only."""
