"""What all plots share, and files for other tools."""
