"""The MC146818 real-time clock with its CMOS RAM."""
