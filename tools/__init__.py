"""What makes the files of share/ and of the documentation site from the code."""
