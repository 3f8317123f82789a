"""What is measured: each module has `measure(quick)`, which gives sections of figures."""
