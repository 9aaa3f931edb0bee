"""Reports of simulated openings: HTML, SVG and terminal. May import the simulation and ``reporting``."""
