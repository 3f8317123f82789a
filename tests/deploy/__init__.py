"""Tests of what is installed and of the files in deploy/."""
